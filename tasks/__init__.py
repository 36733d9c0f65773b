"""What happens: one room a capability, and ``wire/`` with the protocols, which know no database."""
