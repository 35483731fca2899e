"""Trained models that leave us: small files, verified, readable without fpcli."""
