"""The engine that finds patches: threat model, gates, joint head, class cap, learned patch, export (torch)."""
