"""Every setting: frozen classes, whose fields have type, bounds, default, meaning and option."""
