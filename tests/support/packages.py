"""Installed packages that bring stages and decoders: made in a folder, found by its being on the path."""


def package(folder, name, version, modules, points):
    """A distribution in `folder`. `modules`: name -> source; `points`: group -> {name: where}."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, named in points.items():
        lines += [f"[{group}]", *(f"{key} = {where}" for key, where in named.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
