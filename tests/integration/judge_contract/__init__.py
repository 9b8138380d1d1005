"""The suite that every judge must pass, whatever stands behind it."""
