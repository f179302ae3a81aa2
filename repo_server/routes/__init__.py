"""HTTP to the core and back; no rules of their own (design §1)."""
