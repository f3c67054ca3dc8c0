"""``bentotool store``: gc, verify, du."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bentotool.cli.durations import parse_duration
from bentotool.cli.formats import count, human_size
from bentotool.cli.state import current


def collect_store(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    grace: Annotated[str, typer.Option(metavar="DURATION", help="Spare what is younger: 30s, 10m, 1h, 7d.")] = "1h",
) -> None:
    """Remove what nothing in the store needs"""
    from bentotool.oci.collect import collect

    state = current()
    seconds = parse_duration(grace, "--grace")
    with state.console.progress(None, "collect", unit="names and blobs") as progress:
        done = collect(state.layout, grace=seconds, dry_run=dry_run, advance=progress.advance)
    document = {
        "dry_run": dry_run,
        "blobs": list(done.blobs),
        "size": done.size,
        "leftovers": list(done.leftovers),
        "views": list(done.views),
        "kept": done.kept,
        "young": done.young,
    }

    def human() -> None:
        verb = "would remove" if dry_run else "removed"
        parts = [
            count(len(done.blobs), "blob"),
            count(len(done.views), "view"),
            count(len(done.leftovers), "leftover"),
        ]
        state.console.line(f"{verb} {human_size(done.size)}: {', '.join(parts)}; {count(done.kept, 'blob')} kept")
        if done.young:
            state.console.note(
                f"{count(done.young, 'unused blob')} of the last {grace} spared; --grace 0s removes them too, "
                "when no import, build or pull is under way"
            )

    state.console.result(document, human)


def verify_store(
    repair: Annotated[
        bool, typer.Option("--repair", help="Move what is damaged to the store's quarantine folder.")
    ] = False,
) -> None:
    """Check every byte in the store"""
    from bentotool.oci import checking
    from bentotool.oci.collect import stored_blobs

    state = current()

    def adopt(kind: str, name: str, version: str, digest: str) -> None:
        from bentotool.build.bentos import BentoStore

        store = state.models if kind == "models" else BentoStore(state.layout)
        store.adopt(name, version, digest)

    total = sum(size for _, size in stored_blobs(state.layout))
    with state.console.progress(total, "verify") as progress:
        report = checking.verify_store(state.layout, repair=repair, advance=progress.advance, adopt=adopt)
    faults = [_fault(fault) for fault in report.faults]
    document = {
        "ok": not faults,
        "blobs": report.blobs,
        "size": report.size,
        "references": report.references,
        "faults": faults,
    }

    def human() -> None:
        read = f"{count(report.blobs, 'blob')} ({human_size(report.size)}), {count(report.references, 'reference')}"
        if not faults:
            state.console.line(f"the store is whole: {read}")
            return
        rows = [(f["kind"], f["what"], ", ".join(f["touches"]) or "-", f["reason"]) for f in faults]
        state.console.table(("fault", "what", "needed by", "reason"), rows)
        state.console.line(f"{count(len(faults), 'fault')} in {read}")
        _advise(faults, repair)

    state.console.result(document, human)
    if faults:
        raise typer.Exit(4)


def _fault(fault: Any) -> dict[str, Any]:
    return {**vars(fault), "touches": list(fault.touches)}


def _advise(faults: list[dict[str, Any]], repair: bool) -> None:
    note = current().console.note
    if moved := [fault["quarantined"] for fault in faults if fault["quarantined"]]:
        folder = current().layout.root / "quarantine"
        note(f"moved {len(moved)} of them to {folder}, which nothing needs: delete it when you like")
    if not repair and any(fault["kind"] != "missing" for fault in faults):
        note("set what is damaged aside with: bentotool store verify --repair")
    if repair:
        if again := [fault["what"] for fault in faults if fault["rebuilt"]]:
            note(f"written again from what the store knows: {', '.join(again)}")
        lost = [f for f in faults if f["kind"] == "reference" and f["quarantined"] and not f["rebuilt"]]
        for name in sorted({name for fault in lost for name in fault["touches"]}):
            note(f"{name} is named no more: the next gc removes its content unless it is imported or pulled again")
    if touched := sorted({name for fault in faults if not fault["rebuilt"] for name in fault["touches"]}):
        note(f"import, build or pull again: {', '.join(touched)}")


def measure_store() -> None:
    """Show what takes the store's space"""
    from bentotool.oci.usage import measure

    state = current()
    usage = measure(state.layout)
    names = sorted(usage.names, key=lambda each: (-each.total, each.ref.kind, each.ref.ref))
    items = [
        {
            "kind": {"models": "model", "bentos": "bento"}[each.ref.kind],
            "name": each.ref.name,
            "version": each.ref.tag,
            "tag": each.ref.ref,
            "digest": each.ref.digest,
            "size": each.total,
            "alone": each.alone,
        }
        for each in names
    ]
    document = {
        "path": str(state.store),
        "stored": usage.stored,
        "shared": usage.shared,
        "unreferenced": usage.unreferenced,
        "unfinished": usage.unfinished,
        "quarantine": usage.quarantine,
        "items": items,
    }

    def human() -> None:
        if items:
            rows = [
                (item["tag"], item["kind"], human_size(each.total), human_size(each.alone))
                for item, each in zip(items, names, strict=True)
            ]
            state.console.table(("tag", "kind", "size", "its alone"), rows)
            state.console.line()
        state.console.fields(
            {
                "stored": human_size(usage.stored),
                "shared": human_size(usage.shared),
                "unreferenced": human_size(usage.unreferenced),
                "unfinished": human_size(usage.unfinished),
                "quarantine": human_size(usage.quarantine),
            }
        )

    state.console.result(document, human)
