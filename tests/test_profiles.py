"""clusters.yaml: what it gives, and each kind of mistake by its text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.errors import RequestError
from pipeline.profiles import Profile, clusters_file, find_profile, load_profiles, memory_bytes, walltime_s

FULL = """\
version: 1
slurm:
  gpu:
    queue: gpu
    account: mylab
    walltime: "08:00:00"
    memory: 32GB
    cores: 8
    gres: "gpu:a100:1"
    max_jobs: 8
    min_jobs: 1
    setup: ["module load cuda", "source ~/venv/bin/activate"]
    directives: ["--constraint=a100"]
    interface: ib0
    python: ~/venv/bin/python
    local_directory: /scratch/$USER
    cpu_profile: cpu
    client_walltime: 7-00:00:00
    client_directives: []
  cpu: {queue: cpu, cores: 4, memory: 12GB, walltime: "04:00:00", max_jobs: 16}
"""
BARE = 'walltime: "01:00:00", memory: 4GB, cores: 2'


def write(folder: Path, text: str) -> Path:
    path = folder / "clusters.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(RequestError, match=r"clusters\.yaml") as caught:
        load_profiles(write(folder, text))
    return [str(problem) for problem in caught.value.problems]


def test_all_keys(tmp_path: Path) -> None:
    profiles = load_profiles(write(tmp_path, FULL))
    assert list(profiles) == ["gpu", "cpu"]
    assert profiles["gpu"] == Profile(
        name="gpu",
        queue="gpu",
        account="mylab",
        walltime="08:00:00",
        memory="32GB",
        cores=8,
        gres="gpu:a100:1",
        max_jobs=8,
        min_jobs=1,
        setup=("module load cuda", "source ~/venv/bin/activate"),
        directives=("--constraint=a100",),
        interface="ib0",
        python="~/venv/bin/python",
        local_directory="/scratch/$USER",
        cpu_profile="cpu",
        client_walltime="7-00:00:00",
        client_directives=(),
    )
    assert (profiles["gpu"].walltime_s, profiles["gpu"].memory_bytes, profiles["gpu"].has_gpu) == (8 * 3600, 32 * 2**30, True)
    assert (profiles["gpu"].client_walltime_s, profiles["gpu"].client_memory_bytes) == (7 * 86400, 4 * 2**30)


def test_defaults(tmp_path: Path) -> None:
    (profile,) = load_profiles(write(tmp_path, f"version: 1\nslurm:\n  any: {{{BARE}}}\n")).values()
    assert (profile.queue, profile.gpus, profile.has_gpu, profile.max_jobs, profile.min_jobs) == ("", 0, False, 4, 0)
    assert (profile.generic_resources, profile.client_cores, profile.client_walltime_s) == ("", 1, 3600)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:01:00", 60), ("08:00:00", 28800), ("100:00:30", 360030), ("1-00:00:00", 86400), ("2-12", 216000), ("1-02:30", 95400)],
)
def test_walltimes(text: str, seconds: int) -> None:
    assert walltime_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "60", "90:00", "8h", "08:60:00", "08:00:61", "-1:00:00", "08:00:00 ", "1-", "08:00:00:00", "٠٨:00:00"]
)
def test_what_is_no_walltime(text: str) -> None:
    with pytest.raises(ValueError, match="not hours:minutes:seconds or days-hours:minutes:seconds"):
        walltime_s(text)


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("512M", 2**29), ("4GB", 2**32), ("4 GiB", 2**32), ("1.5g", 3 * 2**29), ("1TB", 2**40), ("1048576K", 2**30)],
)
def test_memory_in_slurms_units(text: str, n_bytes: int) -> None:
    assert memory_bytes(text) == n_bytes


@pytest.mark.parametrize("text", ["", "32", "GB", "0GB", "-4GB", "4 G B", "4PB", "4GBs", "1e3G"])
def test_what_is_no_memory(text: str) -> None:
    with pytest.raises(ValueError, match="not a number with a unit"):
        memory_bytes(text)


@pytest.mark.parametrize(
    ("gres", "has"), [("gpu", True), ("gpu:1", True), ("gpu:a100:1,tmp:10G", True), ("tmp:10G", False), ("gpu:0", False)]
)
def test_whether_a_gpu_is_asked_for(gres: str, has: bool) -> None:
    profile = Profile(name="any", walltime="01:00:00", memory="1G", cores=1, gres=gres)
    assert (profile.has_gpu, profile.generic_resources) == (has, gres)


def test_a_profile_checks_itself() -> None:
    with pytest.raises(ValueError, match="gpus: a job has at most one GPU, got 2"):
        Profile(name="any", walltime="01:00:00", memory="1G", cores=1, gpus=2)


# One mistake each, in one profile on line 3 (a second one on line 4 where it has two lines); all that is said of it.
SINGLE = {
    "unknown key": (f"a: {{{BARE}, acount: x}}", ["3: slurm.a.acount: unknown key; did you mean 'account'?"]),
    "unknown key, nothing near": (f"a: {{{BARE}, colour: x}}", ["3: slurm.a.colour: unknown key; known: walltime, memory, cores, queue,"]),
    "a name is no key": (f"a: {{{BARE}, name: x}}", ["3: slurm.a.name: unknown key"]),
    "text for a number": (
        'a: {walltime: "01:00:00", memory: 4GB, cores: two}',
        ["3: slurm.a.cores: input should be a valid integer, got 'two'; give a whole number"],
    ),
    "text for a list": (f"a: {{{BARE}, setup: module load cuda}}", ["3: slurm.a.setup: input should be a valid", "give a list of text"]),
    "number for text": (f"a: {{{BARE}, queue: 7}}", ["3: slurm.a.queue: input should be a valid string, got 7; give text"]),
    "nothing needed is there": (
        "a: {}",
        [
            "3: slurm.a: needs 'walltime'; write 'walltime: \"08:00:00\"', for one job",
            "3: slurm.a: needs 'memory'; write 'memory: 16GB', for one job",
            "3: slurm.a: needs 'cores'; write 'cores: 4', for one job",
        ],
    ),
    "no mapping": ("a: gpu", ["3: slurm.a: must be a mapping; write 'walltime: \"08:00:00\"' below it"]),
    "no name": (f"a b: {{{BARE}}}", ["3: slurm.a b: not a profile's name; use letters, digits, _ and -"]),
    "a time that YAML takes for a number": (
        "a: {walltime: 12:00:00, memory: 4GB, cores: 2}",
        ['3: slurm.a.walltime: must be text, got the number 43200; write it in quotes: "08:00:00"'],
    ),
    "a time without hours": (
        'a: {walltime: "90:00", memory: 4GB, cores: 2}',
        ["3: slurm.a.walltime: not hours:minutes:seconds or days-hours:minutes:seconds: '90:00'; write hours, minutes and seconds"],
    ),
    "a time too short": (
        'a: {walltime: "00:00:59", memory: 4GB, cores: 2}',
        ["3: slurm.a.walltime: less than a minute, the least that SLURM knows: '00:00:59'"],
    ),
    "no time": ('a: {walltime: "", memory: 4GB, cores: 2}', ["3: slurm.a.walltime: not hours:minutes:seconds"]),
    "a client's time": (f"a: {{{BARE}, client_walltime: 1w}}", ["3: slurm.a.client_walltime: not hours:minutes:seconds"]),
    "memory without a unit": (
        'a: {walltime: "01:00:00", memory: "4000", cores: 2}',
        ["3: slurm.a.memory: not a number with a unit: '4000'; write it as in 32GB"],
    ),
    "a client's memory": (f'a: {{{BARE}, client_memory: ""}}', ["3: slurm.a.client_memory: not a number with a unit: ''"]),
    "no cores": ('a: {walltime: "01:00:00", memory: 4GB, cores: 0}', ["3: slurm.a.cores: must not be below 1, got 0; give 1 or more"]),
    "no jobs": (f"a: {{{BARE}, max_jobs: 0}}", ["3: slurm.a.max_jobs: must not be below 1, got 0"]),
    "fewer than no jobs": (f"a: {{{BARE}, min_jobs: -1}}", ["3: slurm.a.min_jobs: must not be below 0, got -1"]),
    "more at least than at most": (
        f"a: {{{BARE}, min_jobs: 5}}",
        ["3: slurm.a.min_jobs: is above max_jobs, 4; give less, or a higher max_jobs"],
    ),
    "several GPUs": (
        f"a: {{{BARE}, gpus: 4}}",
        ["3: slurm.a.gpus: a job has at most one GPU, got 4; one process works on one GPU: ask for one here, and for more jobs"],
    ),
    "several GPUs in SLURM's words": (
        f'a: {{{BARE}, gres: "gpu:a100:2"}}',
        ["3: slurm.a.gres: a job has at most one GPU, got 'gpu:a100:2'"],
    ),
    "a GPU twice": (f'a: {{{BARE}, gpus: 1, gres: "gpu:1"}}', ["3: slurm.a.gres: stands instead of gpus, and both are given; remove one"]),
    "gres with an option": (
        f'a: {{{BARE}, gres: "--gres=gpu:1"}}',
        ["3: slurm.a.gres: not what SLURM's --gres takes: '--gres=gpu:1'; write it"],
    ),
    "a queue of two words": (f"a: {{{BARE}, queue: gpu -A other}}", ["3: slurm.a.queue: not one word: 'gpu -A other'; give the name that"]),
    "a queue on two lines": (f'a: {{{BARE}, queue: "gpu\\ntouch x"}}', ["3: slurm.a.queue: not one word"]),
    "an account that is an option": (f"a: {{{BARE}, account: -x}}", ["3: slurm.a.account: not one word: '-x'"]),
    "a setup of two lines": (f'a: {{{BARE}, setup: ["a\\nb"]}}', ["3: slurm.a.setup: an entry has several lines; make each line an entry"]),
    "a directive of two lines": (f'a: {{{BARE}, directives: ["--x\\nrm"]}}', ["3: slurm.a.directives: an entry has several lines"]),
    "a directive that is none": (
        f"a: {{{BARE}, directives: [constraint=a100]}}",
        ["3: slurm.a.directives: not an option of sbatch: 'constraint=a100'; write it as in \"--constraint=a100\""],
    ),
    "a directive with a key": (
        f'a: {{{BARE}, directives: ["--time=01:00:00"]}}',
        ["3: slurm.a.directives: --time has a key of its own; write 'walltime'"],
    ),
    "a short directive with a key": (
        f"a: {{{BARE}, directives: [-pgpu]}}",
        ["3: slurm.a.directives: -p has a key of its own; write 'queue'"],
    ),
    "a client's directive with a key": (
        f'a: {{{BARE}, client_directives: ["--mem 4G"]}}',
        ["3: slurm.a.client_directives: --mem has a key of its own; write 'client_memory'"],
    ),
    "a directive that is ours": (
        f'a: {{{BARE}, directives: ["--array=1-4"]}}',
        ["3: slurm.a.directives: --array is set by affectpipe; remove"],
    ),
    "a path that a shell would read": (
        f"a: {{{BARE}, local_directory: '/x/`id`'}}",
        ['3: slurm.a.local_directory: holds a ", a `, a backslash or'],
    ),
    "an unknown cpu_profile": (
        f"gpu: {{{BARE}, cpu_profile: cpus}}\n  cpu: {{{BARE}}}",
        ["3: slurm.gpu.cpu_profile: unknown profile 'cpus'; did you mean 'cpu'?"],
    ),
    "itself for cpu_profile": (
        f"a: {{{BARE}, cpu_profile: a}}",
        ["3: slurm.a.cpu_profile: is the profile itself; name another one, or remove it"],
    ),
    "a chain of cpu_profiles": (
        f"a: {{{BARE}, cpu_profile: b}}\n  b: {{{BARE}, cpu_profile: c}}\n  c: {{{BARE}}}",
        ["3: slurm.a.cpu_profile: 'b' has a cpu_profile of its own; remove it from 'b'"],
    ),
    "a cpu_profile with a GPU": (
        f"a: {{{BARE}, cpu_profile: b}}\n  b: {{{BARE}, gpus: 1}}",
        ["3: slurm.a.cpu_profile: 'b' asks for a GPU; name a profile without one"],
    ),
    "given twice": (f"a: {{{BARE}}}\n  a: {{{BARE}}}", ["4: slurm.a: given twice, first on line 3; keep one"]),
}


@pytest.mark.parametrize("case", SINGLE)
def test_a_single_mistake(tmp_path: Path, case: str) -> None:
    body, said = SINGLE[case]
    found = problems(tmp_path, f"version: 1\nslurm:\n  {body}\n")
    whole = "\n".join(found)
    assert all(part in whole for part in said), whole
    assert len(found) == sum(re.match(r"\d+: ", part) is not None for part in said), whole


def test_all_at_once_with_their_lines(tmp_path: Path) -> None:
    gpu = "    walltime: 8h\n    memory: 32\n    cores: 0\n    gpus: 2\n    cpu_profile: cpus\n"
    text = f"version: 2\nslurm:\n  gpu:\n{gpu}  cpu:\n    cores: 1\nslrm: {{}}\n"
    assert [problem.partition(";")[0] for problem in problems(tmp_path, text)] == [
        "clusters.yaml:1: version: must be 1, got 2",
        "clusters.yaml:4: slurm.gpu.walltime: not hours:minutes:seconds or days-hours:minutes:seconds: '8h'",
        "clusters.yaml:5: slurm.gpu.memory: input should be a valid string, got 32",
        "clusters.yaml:6: slurm.gpu.cores: must not be below 1, got 0",
        "clusters.yaml:7: slurm.gpu.gpus: a job has at most one GPU, got 2",
        "clusters.yaml:8: slurm.gpu.cpu_profile: unknown profile 'cpus'",
        "clusters.yaml:9: slurm.cpu: needs 'walltime'",
        "clusters.yaml:9: slurm.cpu: needs 'memory'",
        "clusters.yaml:11: slrm: unknown key",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a clusters file is a mapping; write:\nversion: 1"),
        ("- 1\n", "a clusters file is a mapping"),
        ("version: 1\n", "slurm: must map names to profiles; write:\nversion: 1\nslurm:\n  gpu: {queue: gpu, gpus: 1"),
        ("version: 1\nslurm: {}\n", "slurm: must map names to profiles"),
        ("version: true\nslurm: {a: {}}\n", "version: must be 1, got True"),
        ("version: 1\nslurm: [", "is not YAML"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    assert said in "\n".join(problems(tmp_path, text))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read: Is a directory; give a clusters file with --clusters"):
        load_profiles(tmp_path)


def test_the_first_profile_is_the_default(tmp_path: Path) -> None:
    path = write(tmp_path, FULL)
    assert find_profile(path, None).name == "gpu"
    assert find_profile(path, "cpu").name == "cpu"


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, FULL)
    with pytest.raises(RequestError, match=r"clusters\.yaml: no profile 'cpus'; did you mean 'cpu'\?"):
        find_profile(path, "cpus")
    with pytest.raises(RequestError, match=r"no profile 'nodes'; profiles: gpu, cpu"):
        find_profile(path, "nodes")


def test_no_file_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError, match=r"no cluster is described: it is looked for beside the stages file.*; write there, for yours:\n"
    ) as caught:
        find_profile(tmp_path / "clusters.yaml", "gpu")
    written = str(caught.value).partition("for yours:\n")[2]
    assert find_profile(write(tmp_path, written), "gpu").has_gpu  # it can be taken as it stands


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, here, home = tmp_path / "project" / "stages.yaml", tmp_path / "here", tmp_path / "home"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    assert clusters_file(beside) == beside.parent / "clusters.yaml"  # where one is to be written
    at_home = write(home / ".config" / "affectpipe", FULL)
    assert clusters_file(beside) == at_home
    write(here, FULL)
    assert clusters_file(beside) == Path("clusters.yaml")
    assert clusters_file(Path("stages.yaml")) == Path("clusters.yaml")
    write(beside.parent, FULL)
    assert clusters_file(beside) == beside.parent / "clusters.yaml"
