"""Draws the charts and writes docs/benchmarks.md from the JSON that the benchmarks wrote. Needs matplotlib.

    python benchmarks/chart.py [--results benchmarks/results] [--output docs/charts]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

LABELS = {"hushgrad": "hushgrad", "hushgrad_per_layer": "hushgrad, per layer", "opacus_ghost": "Opacus, ghost", "opacus_hooks": "Opacus, hooks"}
COLOURS = {"hushgrad": "#1b6ca8", "hushgrad_per_layer": "#7fb3d5", "opacus_ghost": "#c0793b", "opacus_hooks": "#8d8d8d"}


def step_chart(results: dict[str, Any], to: Path) -> None:
    models = list(results)
    figure, axes = plt.subplots(figsize=(9, 3.6))
    width = 0.8 / len(LABELS)
    for i, name in enumerate(LABELS):
        for x, model in enumerate(models):
            row = results[model].get(name)
            if row is None:
                continue
            ratio = row["time_ratio"]
            at = x - 0.4 + (i + 0.5) * width
            axes.bar(at, min(ratio, 4), width, color=COLOURS[name], label=LABELS[name] if x == 0 else None)
            axes.text(at, min(ratio, 4) + 0.03, f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}", ha="center", va="bottom", fontsize=6, rotation=90)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(models)), models, fontsize=8)
    axes.set_ylim(0, 4.6)
    axes.set_ylabel("time of a step / ordinary training")
    axes.legend(fontsize=7, ncols=4, loc="upper center", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(to / "step.svg", metadata={"Date": None})


def scaling_chart(results: dict[str, Any], to: Path) -> None:
    figure, panels = plt.subplots(1, len(results), figsize=(9, 2.6))
    for panel, (axis, rows) in zip(panels, results.items()):
        names = list(rows)
        for kind, colour in (("plain_ms", "#8d8d8d"), ("hushgrad_ms", "#1b6ca8")):
            panel.plot(range(len(names)), [rows[n][kind] for n in names], marker="o", color=colour, label=kind.removesuffix("_ms"))
        panel.set_xticks(range(len(names)), names, fontsize=7)
        panel.set_yscale("log", base=2)
        panel.set_title(axis, fontsize=9)
        panel.set_ylabel("ms a step", fontsize=8)
        panel.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(to / "scaling.svg", metadata={"Date": None})


WHOLE = """
The whole step with loader, noise and optimizer (SGD), through `PrivacyEngine`, milliseconds. "Beyond clipping": what the whole step adds
to an ordinary one more than forward + backward + clip does, beside one `normal_` over as many values as there are parameters.

| model | ordinary | hushgrad | ratio | beyond clipping | `normal_` |
| --- | --- | --- | --- | --- | --- |
"""


def number(row: dict[str, Any] | None, key: str) -> str:
    if row is None or row.get(key) is None:
        return "-"
    return f"{row[key]:.2f}" if row[key] < 10 else f"{row[key]:.0f}"


def page(step: dict[str, Any], scaling: dict[str, Any] | None) -> str:
    lines = [
        "# Benchmarks\n\n",
        "Forward + backward + clip of one step against forward + backward of ordinary training, on the same inputs, taking turns in one\n",
        "process; medians. Memory: the peak above the loaded libraries, model and data, each in a fresh process. A dash: Opacus cannot run the model (fused LSTM, shared ids), or its memory\n",
        "does not fit (recommender).\n\nWritten by `benchmarks/chart.py` from `benchmarks/results/step.json`; `benchmarks/step_bench.py` measures.\n\n",
        f"{step['machine']['cpu']}, {step['machine']['threads']} threads, torch {step['machine']['torch']}, median of {step['repeats']}.\n\n",
        "| model | ms, ordinary | " + " | ".join(LABELS.values()) + " |\n| --- | --- |" + " --- |" * len(LABELS) + "\n",
    ]
    for model, rows in step["results"].items():
        lines.append(f"| {model} | {rows['plain']['median_ms']:.0f} | " + " | ".join(number(rows.get(n), "time_ratio") for n in LABELS) + " |\n")
    lines.append("\nPeak memory, as a ratio to ordinary training:\n\n| model | MiB, ordinary | " + " | ".join(LABELS.values()) + " |\n| --- | --- |" + " --- |" * len(LABELS) + "\n")
    for model, rows in step["results"].items():
        lines.append(f"| {model} | {rows['plain']['peak_mib']:.0f} | " + " | ".join(number(rows.get(n), "peak_ratio") for n in LABELS) + " |\n")
    if all("live_ratio" in rows["plain"] for rows in step["results"].values()):
        lines.append("\nOf this, what tensors hold at most in a step (the rest is how malloc places and returns them), as a ratio:\n\n")
        lines.append("| model | MiB, ordinary | " + " | ".join(LABELS.values()) + " |\n| --- | --- |" + " --- |" * len(LABELS) + "\n")
        for model, rows in step["results"].items():
            lines.append(f"| {model} | {rows['plain']['live_mib']:.0f} | " + " | ".join(number(rows.get(n), "live_ratio") for n in LABELS) + " |\n")
    if all("whole" in rows for rows in step["results"].values()):
        lines.append(WHOLE)
        for model, rows in step["results"].items():
            plain, private, normal = (rows["whole"][name]["median_ms"] for name in ("plain", "hushgrad", "normal_"))
            beyond = private - plain - (rows["hushgrad"]["median_ms"] - rows["plain"]["median_ms"])
            lines.append(f"| {model} | {plain:.0f} | {private:.0f} | {private / plain:.2f} | {beyond:.1f} | {normal:.1f} |\n")
    lines.append("\n![time of a step](charts/step.svg)\n")
    if scaling:
        lines.append("\n## Growth\n\nA GPT on 128 tokens; milliseconds a step.\n\n| axis | setting | ordinary | hushgrad | ratio |\n| --- | --- | --- | --- | --- |\n")
        for axis, rows in scaling["results"].items():
            for name, row in rows.items():
                lines.append(f"| {axis} | {name} | {row['plain_ms']:.0f} | {row['hushgrad_ms']:.0f} | {row['ratio']:.2f} |\n")
        lines.append("\n![growth](charts/scaling.svg)\n")
    return "".join(lines)


def profile_section(document: dict[str, Any]) -> str:
    lines = [
        "\n## Where the time goes\n\nWhat a private step spends more than an ordinary one, by function, in percent of the ordinary step; one thread, "
        "`benchmarks/step_profile.py`. `total_avx512` takes the norms: T²(p + d)/2 multiply-adds for each sample and linear layer of width d to p over T tokens, "
        "where the layer itself takes 3Tpd, so a share of T(1/p + 1/d)/6 that shrinks with width. The sums of clipped gradients read activations and backprops "
        "that have left the caches meanwhile, which is what packing (`scopy`) and scaling (`mul_kernel`) cost more. "
        "What was tried against it: [cost.md](cost.md).\n"
    ]
    for model, rows in document["results"].items():
        lines.append(f"\n| {model}, {rows['ratio']:.2f} in all | % more |\n| --- | --- |\n")
        lines += [f"| `{name.replace('|', ' ')}` | {value:+.1f} |\n" for name, value in rows["percent_more"].items()]
    return "".join(lines)


def sealed_chart(document: dict[str, Any], to: Path) -> None:
    kinds = [kind for kind, rows in document["results"].items() if "sealed" in rows]
    writers = ("safetensors", "torch", "sealed")
    figure, axes = plt.subplots(figsize=(6, 2.8))
    for i, (writer, colour) in enumerate(zip(writers, ("#8d8d8d", "#c0793b", "#1b6ca8"))):
        speeds = [document["gigabytes"] / document["results"][kind][writer]["seconds"] for kind in kinds]
        axes.bar([x - 0.27 + 0.27 * i for x in range(len(kinds))], speeds, 0.25, color=colour, label=writer)
    axes.set_xticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds], fontsize=8)
    axes.set_ylabel("GB / s")
    axes.legend(fontsize=7, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(to / "sealed.svg", metadata={"Date": None})


def noise_section(noise: dict[str, Any], certified: dict[str, Any] | None) -> str:
    machine, memory = noise["machine"], noise["memory"]
    lines = [
        f"\n## Noise\n\nNoise added to a gradient of {noise['coordinates'] / 1e6:.0f} million float32, beside `torch.Tensor.normal_` alone, taking turns; "
        f"{machine['processor']}, {noise['threads']} threads. `benchmarks/noise_bench.py --memory`.\n\n| | ms, median | least |\n| --- | --- | --- |\n"
    ]
    lines += [f"| `{name}` | {row['median_ms']:.0f} | {row['min_ms']:.0f} |\n" for name, row in noise["contenders"].items()]
    most = max(abs(row["welch_t_against_zeros"]) for row in noise["tile"].values() if isinstance(row, dict))
    lines.append(
        f"\nThe time of a tile does not depend on what is in it: |t| at most {most:.1f} between tiles of zeros, of ones, of tiny and of random values "
        f"(a difference would be {noise['tile']['threshold']} or more).\n\nPeak memory of a step with and without noise, parameters of "
        f"{memory['parameters_kib'] / 1024:.0f} MiB: there is no second buffer of that size.\n\n| optimizer | MiB, without | with | KiB more |\n| --- | --- | --- | --- |\n"
    )
    for name, row in memory["peaks"].items():
        lines.append(f"| {name} | {row['without_noise_kib'] / 1024:.1f} | {row['with_noise_kib'] / 1024:.1f} | {row['more_kib']} |\n")
    if certified:
        lines.append(
            f"\nA whole step with noise, {certified['model']}, B={certified['batch']} (`benchmarks/certified_bench.py`):\n\n| sensitivity | ms, median |\n| --- | --- |\n"
        )
        lines += [f"| {name} | {row['median_ms']:.0f} |\n" for name, row in certified["step"].items()]
    return "".join(lines)


def sealed_section(sealed: dict[str, Any]) -> str:
    results, machine = sealed["results"], sealed["machine"]
    lines = [
        f"\n## Sealed files\n\nThe same state of {sealed['gigabytes']:.2f} GB, saved and loaded in turn; {machine['cpu']}, {machine['threads']} threads, OpenSSL "
        f"{machine['openssl']}; medians of {sealed['rounds']}. \"as each does\": a sealed save waits for the disk, the others do not; \"durable\": all wait. A load "
        "ends when the weights are in a model. `benchmarks/sealed_bench.py`.\n\n| | seconds, safetensors | `torch.save` | sealed | sealed / safetensors |\n"
        "| --- | --- | --- | --- | --- |\n"
    ]
    for kind, rows in results.items():
        if "sealed" in rows:
            seconds = " | ".join(f"{rows[writer]['seconds']:.2f}" for writer in ("safetensors", "torch", "sealed"))
            lines.append(f"| {kind.replace('_', ' ')} | {seconds} | {rows['sealed']['ratio_to_safetensors']:.2f} |\n")
    speeds = ", ".join(f"{value:.1f} GB/s with {threads}" for threads, value in sealed["aes_256_gcm_gigabytes_per_second"].items())
    lines.append(
        f"\nAES-256-GCM alone, through OpenSSL: {speeds}. One tensor of 16 MiB is opened in {results['open_one_tensor']['seconds'] * 1000:.0f} ms without reading "
        f"the rest{background_save(results)}.\n\n{sealed_save(results)}\n\n{sealed_load(results)}\n\n![speed of sealed files](charts/sealed.svg)\n"
    )
    if "training_beside_a_save" in results:
        lines.append(training_table(results["training_beside_a_save"]))
    return "".join(lines)


def background_save(results: dict[str, Any]) -> str:
    if "background_save_returns_after" not in results:
        return ""
    return f"; a save in the background returns after {results['background_save_returns_after']['seconds']:.2f} s, the copy of the state"


def sealed_save(results: dict[str, Any]) -> str:
    sealed, plain = results["save_durable"]["sealed"], results["save_as_each_does"]["safetensors"]
    return (
        f"A sealed save takes {sealed['cpu_seconds']:.1f} s of processor time, about equally SHA-256 of each segment, which the manifest holds, with AES, and the copy to the page cache; the disk "
        f"works meanwhile. A save that does not wait for the disk only copies ({plain['cpu_seconds']:.1f} s), and is lost in a power cut."
    )


def sealed_load(results: dict[str, Any]) -> str:
    if "load_without_into_and_copy" not in results:
        return (
            "A load authenticates every byte before a weight of the model changes: it decrypts into memory of its own (one pass of AES, and a page fault for each new page), and\n"
            "then copies, where `safetensors.torch.load_model` copies only. That is most of its distance."
        )
    return (
        "A load authenticates every byte before a weight of the model changes. `load(into=model)` reads and decrypts twice for that, the second time into the model's own memory; "
        f"`load` and `load_state_dict` hold a second copy instead and take {results['load_without_into_and_copy']['seconds']:.2f} s. `safetensors.torch.load_model` copies once "
        'from the page cache, at the speed of memory. "cold": the file comes from the disk, as after a restart.' + plain_decryption(results)
    )


def plain_decryption(results: dict[str, Any]) -> str:
    if "plain_decryption" not in results:
        return ""
    plain, copy = results["plain_decryption"]["seconds"], results["load"]["safetensors"]["seconds"]
    return (
        f" Decrypting as many bytes once from memory to memory, through OpenSSL alone on as many threads, takes {plain:.2f} s, {plain / copy:.1f} times what safetensors needs "
        f"for the whole load; twice, {2 * plain / copy:.1f} times. On this machine no authenticated load from the page cache comes nearer."
    )


def training_table(row: dict[str, float]) -> str:
    return (
        "\nSteps of the same model with SGD, alone and while its state is saved in the background:\n\n| step | seconds |\n| --- | --- |\n"
        f"| alone, median | {row['step_alone_median']:.2f} |\n| alone, worst | {row['step_alone_worst']:.2f} |\n"
        f"| that calls the first save, which makes room for the copy | {row['step_of_the_first_save']:.2f} |\n"
        f"| that calls a later save, median | {row['step_of_later_saves_median']:.2f} |\n| beside a save, median | {row['step_beside_a_save_median']:.2f} |\n"
        f"| worst, but for the first save | {row['step_worst']:.2f} |\n\n"
        f"All the time that a save adds, over the {row['steps_beside_a_save']:.1f} steps that it lasts, is {row['extra_steps_for_each_save']:.2f} steps.\n"
    )


def ledger_section(ledger: dict[str, Any]) -> str:
    step, verify, machine = ledger["step"], ledger["verify"], ledger["machine"]
    return (
        f"\n## Ledger\n\n{machine['processor']}, {machine['cores']} cores. `benchmarks/ledger_bench.py`: {step['steps']} steps of {step['step_ms']:.0f} ms, "
        "each preceded by `charge_step` on a ledger file with a budget, in one run.\n\n| | |\n| --- | --- |\n"
        f"| time in `charge_step` / time of the steps | {100 * step['overhead']:.2f} % |\n"
        f"| the same, second half of the run | {100 * step['overhead_second_half']:.2f} % |\n"
        f"| one `charge_step`, median | {step['charge_us_median']:.0f} us |\n"
        f"| `verify` of {verify['charges']:,} charges, an entry each | {verify['verify_seconds']:.2f} s |\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--output", type=Path, default=Path("docs/charts"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, draw in (("step", step_chart), ("scaling", scaling_chart)):
        source = arguments.results / f"{name}.json"
        if source.exists():
            found[name] = json.loads(source.read_text())
            draw(found[name]["results"], arguments.output)
    read = {name: json.loads(path.read_text()) for name in ("step_profile", "noise", "certified", "sealed", "ledger") if (path := arguments.results / f"{name}.json").exists()}
    text = page(found["step"], found.get("scaling")) if "step" in found else ""
    if "step_profile" in read:
        text += profile_section(read["step_profile"])
    if "noise" in read:
        text += noise_section(read["noise"], read.get("certified"))
    if "sealed" in read:
        sealed_chart(read["sealed"], arguments.output)
        text += sealed_section(read["sealed"])
    if "ledger" in read:
        text += ledger_section(read["ledger"])
    if "step" in found:
        (arguments.output.parent / "benchmarks.md").write_text(text)


if __name__ == "__main__":
    main()
