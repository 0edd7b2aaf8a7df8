"""Egress policy: a sidecar that decides what a sandbox may reach.

``hooks`` registers; ``config`` is the section ``[egress]``; ``rules`` refuses what cannot be kept; ``sidecar`` is the
container; ``plugin`` amends plans and says where a policy is read and changed.
"""
