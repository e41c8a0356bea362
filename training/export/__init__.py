"""Our rows and rewards for other training stacks: one file a target, `icr train export --to NAME`."""
