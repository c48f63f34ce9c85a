"""The stage `infer`: frames through a model on an OpenVINO device, objects out.

    files           is this a model that can be read?      plain checks, no OpenVINO
    model           read, prepare, compile                 the file that imports openvino
    facts picture   what the model shows; how pictures are prepared for it
    ultralytics     what that exporter writes beside a model
    feed direct     a frame into the model's input: made ready here, or as it is
    runner batch    the infer requests, for single frames and for several together
    watch           notices that the model's files are no longer those that run
    decode choose   what a decoder is; which one fits
    ssd yunet ultraface yolox yolo (yolo_layout)           the decoders: of objects,
    keypoints segmentation classification embedding        of points, pixels, whole pictures,
    raw custom                                             of anything
    nms labels      what they share
    alone           the stage in an application, without a pipeline
    stage           Infer: all of it, several frames at a time

Importing this package imports neither openvino nor cv2: they are loaded when they are needed.
"""

from ovpipe.stages.infer.decode import FrameInfo
from ovpipe.stages.infer.stage import Infer

__all__ = ["FrameInfo", "Infer"]
