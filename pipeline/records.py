"""The records between the decoding process and its reader: a fixed head, then the bytes it announces."""

import struct

# tag (t: a time, f: a frame, j: the closing JSON, e: an error), frame number, time in seconds, height, width or bytes that follow
RECORD = struct.Struct("<cqdqq")

# The containers that are opened: files of their own. No playlist, no concat list, no picture sequence, nothing that names other files.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,m4v,h264,hevc,ivf,mxf,rm,wmv,dv,nut,"
    "wav,mp3,flac,aac,amr,aiff,caf,w64"
)
