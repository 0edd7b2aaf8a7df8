"""Preview hosts: a host name of this server for each port of each sandbox."""
