"""HTTP: the wire, requests and answers, downloads, TLS."""
