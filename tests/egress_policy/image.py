"""A small egress image for a real engine: it keeps a policy behind a token, as the real one does, and no more."""

from __future__ import annotations

import base64

HANDLER = r"""#!/bin/sh
# One HTTP request on standard input; only the owner of the token is answered.
kept=/tmp/policy
answer() {
    printf 'HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' \
        "$1" "${#2}" "$2"
}
read -r method path version
length=0 token=
while read -r line; do
    line=$(printf %s "$line" | tr -d '\r')
    [ -n "$line" ] || break
    name=$(printf %s "${line%%:*}" | tr A-Z a-z)
    case $name in
        content-length) length=${line#*: } ;;
        opensandbox-egress-auth) token="$token${line#*: }" ;;
    esac
done
body=$(head -c "$length")
if [ "$token" != "$OPENSANDBOX_EGRESS_TOKEN" ]; then
    answer '401 Unauthorized' '{"error":"token"}'
    exit
fi
[ -f $kept ] || printf %s "$OPENSANDBOX_EGRESS_RULES" >$kept
case "$method $path" in
    'GET /healthz') answer '200 OK' '{}' ;;
    'PUT /policy') printf %s "$body" >$kept && answer '200 OK' "{\"policy\":$(cat $kept)}" ;;
    'GET /policy') answer '200 OK' "{\"policy\":$(cat $kept)}" ;;
    'PATCH /policy') answer '200 OK' "{\"asked\":\"$method\",\"for\":$body}" ;;
    'DELETE /policy') answer '202 Accepted' "{\"asked\":\"$method\",\"for\":$body}" ;;
    *) answer '404 Not Found' '{"error":"path"}' ;;
esac
"""
ENTRYPOINT = """#!/bin/sh
touch /opt/opensandbox/left-by-the-sidecar 2>/dev/null
trap 'exit 0' TERM
nc -ll -p 18080 -e /bin/egress-handler &
wait
"""


def dockerfile() -> str:
    """What follows ``FROM`` a BusyBox."""
    return "\n".join(
        [
            f"RUN echo {_encoded(HANDLER)} | base64 -d >/bin/egress-handler",
            f"RUN echo {_encoded(ENTRYPOINT)} | base64 -d >/bin/egress",
            "RUN chmod 755 /bin/egress-handler /bin/egress",
            'ENTRYPOINT ["/bin/egress"]',
        ]
    )


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
