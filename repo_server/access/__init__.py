"""Who may ask, and how often: credentials, addresses, limits."""
