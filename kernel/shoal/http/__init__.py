"""What responders are made with: bodies and queries in, answers out. Public, for the resources of plugins.

::

    parse.py    `BodyDecoder`, as `Body`, and `Query`: typed values, or every problem at once as a 422
    reader.py   the lenient reader behind `BodyDecoder`
    coerce.py   one value of a lenient form
    answers.py  JSON and text out; who asks
"""

from __future__ import annotations

from shoal.http.answers import answer_json, answer_text, ask_policies, is_visible, principal_of
from shoal.http.parse import BodyDecoder as Body
from shoal.http.parse import Query

__all__ = ["Body", "Query", "answer_json", "answer_text", "ask_policies", "is_visible", "principal_of"]
