"""What pyproject.toml cannot say: two top-level folders install below icr_tasks, and the start-up hook is
placed.

`leaderboard/` and `training/` become icr_tasks.leaderboard and icr_tasks.training, so that nothing generic
lands in site-packages. The hook is three files at the top of site-packages: icr_tasks_autoload.py, .pth and
.start (PEP 829).
"""

import shutil
import zipfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

NAME = "icr_tasks_autoload"
SOURCE = Path("icr_tasks/harness/autoload.py")
# A half-installed package must never disturb an interpreter: the line itself catches everything.
PTH = (
    "import sys; exec('try:\\n import icr_tasks_autoload\\n icr_tasks_autoload.install()\\n"
    "except Exception as error:\\n sys.icr_tasks_autoload_error = error')\n"
)
START = f"{NAME}:install\n"
FOLDERS = {"icr_tasks": "icr_tasks", "icr_tasks.leaderboard": "leaderboard", "icr_tasks.training": "training"}


class BuildPy(build_py):
    """build_py that also writes the hook to the root of the wheel."""

    def run(self):
        super().run()
        if not self.editable_mode:
            root = Path(self.build_lib)
            shutil.copyfile(SOURCE, root / f"{NAME}.py")
            (root / f"{NAME}.pth").write_text(PTH)
            (root / f"{NAME}.start").write_text(START)

    def get_outputs(self, include_bytecode=1):
        extra = (
            []
            if self.editable_mode
            else [str(Path(self.build_lib) / f"{NAME}.{end}") for end in ("py", "pth", "start")]
        )
        return super().get_outputs(include_bytecode) + extra


class EditableWheel(editable_wheel):
    """Editable installs carry the hook too."""

    def run(self):
        super().run()
        wheel = max(Path(self.dist_dir).glob("*.whl"), key=lambda path: path.stat().st_mtime)
        with zipfile.ZipFile(wheel) as old:
            files = {name: old.read(name) for name in old.namelist()}
        record = next(name for name in files if name.endswith(".dist-info/RECORD"))
        hook = {
            f"{NAME}.py": SOURCE.read_bytes(),
            f"{NAME}.pth": PTH.encode(),
            f"{NAME}.start": START.encode(),
        }
        files[record] += "".join(f"{name},,\n" for name in hook).encode()
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as new:
            for name, data in {**files, **hook}.items():
                new.writestr(name, data)


setup(
    packages=[
        name if not below else f"{name}.{below}"
        for name, folder in FOLDERS.items()
        for below in ["", *find_packages(folder)]
    ],
    package_dir=FOLDERS,
    cmdclass={"build_py": BuildPy, "editable_wheel": EditableWheel},
)
