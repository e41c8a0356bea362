"""Training: data construction, rewards, SFT and GRPO on TRL. Installed as `icr_tasks.training`."""
