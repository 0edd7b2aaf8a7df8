"""Warm pools: sandboxes of one shape that were started ahead, so that a create takes one instead of making one.

Runtimes with pools of their own (`Runtime.pools`) keep them; for every other runtime that can pause, the kernel does.
``pools`` is the API's side; ``shape`` says what a template means and which creates fit it; ``pool`` counts the members
of one pool; ``keeper`` starts and removes them; ``taking`` hands one to a create.

A member is a sandbox like any other, record and plan durable before an engine is called, but hidden until it is taken
(`SandboxRecord.hidden`). Taking is one commit: the member's own record becomes the caller's, with the Idempotency-Key
if there is one. So whatever instant the process dies at, a member is either idle or somebody's, never both or neither.
"""
