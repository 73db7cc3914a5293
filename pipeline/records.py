"""What the decoding process and its reader say to each other: fixed heads and the bytes they announce, and pictures in shared slots.

A slot is a file without a name that both have mapped. The decoder fills one that it has with a batch of pictures and announces it;
from then on the reader has it, until it gives it back. So the decoder is ahead of its reader by what the slots hold, never by more.
"""

import struct

# To the reader. tag (t: times, b: a batch in a slot, a: nothing but that it is at work, j: the closing JSON, e: an error's),
# bytes that follow, slot, height, width. After t: (n,) float64 seconds; after b: (n,) int64 frame numbers, then (n,) float64 seconds.
HEAD = struct.Struct("<cqqqq")
# To the decoder. tag (q: a request, r: a slot is given back), bytes that follow or the slot. After q: a line of JSON, then the task's own.
ORDER = struct.Struct("<cq")

# Small batches, so that whoever finds faces in a short clip need not wait for most of it; in all slots 150 MB. A slot holds two frames
# of 1080p; a larger picture than one slot goes by itself.
SLOTS = 12
BATCH_BYTES = 25 << 19
BATCH_FRAMES = 8

# The containers that are opened: files of their own. No playlist, no concat list, no picture sequence, nothing that names other files.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,m4v,h264,hevc,ivf,mxf,rm,wmv,dv,nut,"
    "wav,mp3,flac,aac,amr,aiff,caf,w64"
)
