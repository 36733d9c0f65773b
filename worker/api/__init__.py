"""The HTTP API: FastAPI over the engines, one module a noun."""
