"""What a run looks like: pictures and pages made from its events."""
