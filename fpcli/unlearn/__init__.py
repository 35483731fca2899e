"""Making a federated model forget: its recipe, the search for a share, and the result."""
