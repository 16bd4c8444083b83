"""The operator: gather, decide, apply; kopf handlers of ten lines; everything wired in one place."""
