"""Idle timeout: ends or pauses a sandbox that nobody has reached for a while."""
