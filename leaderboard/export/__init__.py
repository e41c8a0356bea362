"""What others read, one file a format, which registers a function `export(source, out) -> list[Path]`:

    from icr_tasks.registry import EXPORTS

    @EXPORTS.register("lines")
    def lines(source: Source, out: Path) -> list[Path]:
        path = out / "labels.txt"
        path.write_text("".join(f"{run.label}\\n" for run in source.runs()), encoding="utf-8")
        return [path]

`source` reads the ledgers one run at a time (`_source.Source`); `icr export FORMAT RESULTS -o OUT` calls it.
"""
