"""What icr-tasks imports (entry point `icr_tasks`): each module registers one thing."""

from . import benchmark, kv_method, metric, retriever, view

__all__ = ["benchmark", "kv_method", "metric", "retriever", "view"]
