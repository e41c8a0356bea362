"""Studies: models x settings x prompts x tasks from one YAML file, resumable, shareable between processes."""
