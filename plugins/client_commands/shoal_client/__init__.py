"""Sub-commands of ``shoal`` for people at a terminal, by the public API of a server alone.

::

    hooks        the plugin
    connection   which server, which key, and one request to it
    sandboxes    create, find, list, delete: the lifecycle API
    events       a command's output, as the agent streams it
    agent        commands, files and directories inside a sandbox
    websocket    a client's side of RFC 6455, for the terminal
    options      arguments that several commands take
    table        rows for people
    run          ``shoal run`` and ``shoal exec``
    copy         ``shoal cp``
    listing      ``shoal ls``, ``shoal logs`` and ``shoal rm``
    shell        ``shoal shell``
    completion   ``shoal completion``
"""
