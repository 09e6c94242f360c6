"""The name of this machine's CPU, for files and tables. A model name alone may say little ("AMD EPYC")."""
import platform
import re

# vendor, family, first and last model: microarchitecture
CORES = [("AuthenticAMD", 0x17, 0x00, 0x2f, "zen1"), ("AuthenticAMD", 0x17, 0x30, 0xff, "zen2"),
         ("AuthenticAMD", 0x19, 0x00, 0x0f, "zen3"), ("AuthenticAMD", 0x19, 0x10, 0x1f, "zen4"),
         ("AuthenticAMD", 0x19, 0x20, 0x5f, "zen3"), ("AuthenticAMD", 0x19, 0x60, 0xaf, "zen4"),
         ("AuthenticAMD", 0x1a, 0x00, 0x4f, "zen5"), ("AuthenticAMD", 0x1a, 0x60, 0x7f, "zen5"),
         ("GenuineIntel", 6, 0x3c, 0x3f, "haswell"), ("GenuineIntel", 6, 0x4f, 0x4f, "broadwell"),
         ("GenuineIntel", 6, 0x55, 0x55, "skylake"), ("GenuineIntel", 6, 0x6a, 0x6c, "icelake"),
         ("GenuineIntel", 6, 0x8f, 0x8f, "sapphirerapids"), ("GenuineIntel", 6, 0xcf, 0xcf, "emeraldrapids"),
         ("GenuineIntel", 6, 0xad, 0xae, "graniterapids")]
# The first that the CPU has is what matrix products are fastest with.
FEATURES = {"amx_bf16": "amx", "avx512_bf16": "avx512bf16", "avx512_vnni": "avx512vnni", "avx512f": "avx512",
            "avx_vnni": "avxvnni", "avx2": "avx2"}


def describe(cpuinfo=None):
    """(model name, microarchitecture and features): ("AMD EPYC", "zen5-avx512bf16"), of /proc/cpuinfo's text."""
    if cpuinfo is None:
        with open("/proc/cpuinfo") as file:
            cpuinfo = file.read()
    first = dict(re.findall(r"^([\w ]+?)\s*:[ \t]*(.*)$", cpuinfo.split("\n\n")[0], re.M))
    vendor, family, model = first.get("vendor_id", ""), int(first.get("cpu family", 0)), int(first.get("model", 0))
    cores = [name for v, f, low, high, name in CORES if (v, f) == (vendor, family) and low <= model <= high]
    flags = first.get("flags", "").split()
    features = [name for flag, name in FEATURES.items() if flag in flags]
    kind = "-".join([*(cores or [f"family{family}-model{model}"]), *features[:1]])
    return first.get("model name", platform.machine()), kind


def file_name(model_name, kind, threads):
    """amd-epyc-zen5-avx512bf16-2threads"""
    short = re.sub(r"\((R|TM)\)|\bCPU\b|@.*|\b(\d+-Core )?Processor\b", " ", model_name, flags=re.I)
    return re.sub(r"[^a-z0-9]+", "-", f"{short} {kind} {threads}threads".lower()).strip("-")
