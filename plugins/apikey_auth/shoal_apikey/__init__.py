"""API keys in a header: one from the server's own configuration, and named ones with scopes and rotation.

``hooks`` registers; ``config`` is the section ``[apikey_auth]``; ``sources`` is where keys come from; ``keyring`` the
set in force; ``authenticator`` answers for each request.
"""
