"""Clips made of other clips, for what these do not show: a mirrored and slower face, a hard cut, a crowd at another size."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipeline.sound import ffmpeg_binary

# name: the clips it is made of, and ffmpeg's filter graph over them.
SIZED = "scale=640:360:force_original_aspect_ratio=decrease,pad=640:360:-1:-1,setsar=1,fps=25"
DERIVED = {
    "speech_512_mirrored_slow": (("speech_512",), "[0:v]hflip,settb=1/90000,setpts=1.5*PTS[out]"),
    "single_face_then_crying": (("single_face", "crying_640"), f"[0:v]{SIZED}[a];[1:v]{SIZED}[b];[a][b]concat=n=2[out]"),
    "crowd_720p": (("crowd_1080p",), "[0:v]scale=1280:720[out]"),
}


def derive(clips: Sequence[Path], folder: Path) -> list[Path]:
    """Writes those of DERIVED whose clips are among the given ones, known by their stems."""
    by_stem = {clip.stem: clip for clip in clips}
    made = []
    for name, (stems, graph) in DERIVED.items():
        if set(stems) <= by_stem.keys():
            made.append(folder / f"{name}.mp4")
            inputs = [word for stem in stems for word in ("-i", str(by_stem[stem].absolute()))]
            # Every frame once, at its own time: a slower clip must not be filled up with copies.
            times = ["-fps_mode", "passthrough", "-enc_time_base", "1:90000"]
            coding = ["-map", "[out]", "-an", *times, "-c:v", "libx264", "-crf", "16", "-preset", "fast"]
            words = [ffmpeg_binary(), "-nostdin", "-v", "error", *inputs, "-filter_complex", graph, *coding, str(made[-1])]
            subprocess.run(words, check=True)
    return made
