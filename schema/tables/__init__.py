"""One module a room, loaded when it is needed; `schema.tables.all` has them together."""
