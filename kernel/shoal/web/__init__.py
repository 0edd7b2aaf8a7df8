"""The HTTP control plane.

``app.build`` wires it. A request passes ``edge`` (request id, CORS, authentication, the error net, the access line),
then ``routes`` (Falcon) and one of ``resources``, which reads bodies with `shoal.http` and calls the lifecycle by
``seam``. What the resources declare is checked in ``table``.
"""
