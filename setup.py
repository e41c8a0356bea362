"""Package list: `leaderboard/` and `training/` are top-level folders installed below icr_tasks."""

from setuptools import find_packages, setup

setup(
    packages=["icr_tasks", "icr_tasks.leaderboard", "icr_tasks.training"]
    + [f"icr_tasks.{name}" for name in find_packages("icr_tasks")],
    package_dir={
        "icr_tasks": "icr_tasks",
        "icr_tasks.leaderboard": "leaderboard",
        "icr_tasks.training": "training",
    },
)
