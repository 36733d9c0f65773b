"""Killing what runs, at moments drawn by lot, and holding the books against the servers after it."""
