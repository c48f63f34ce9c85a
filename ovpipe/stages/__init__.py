"""Stages: what a user writes, and the kinds that come with ovpipe. Blind to transport."""
