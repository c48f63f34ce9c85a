"""A source for people who look: the left half of the picture red, the right half blue, one box."""

import time

import numpy as np

import ovpipe


class Scene(ovpipe.Producer):
    """Ten pictures a second. `matrix`: how the colours are carried."""

    matrix: str = "bt709"

    @property
    def live(self):
        return True

    def frames(self):
        width, height = 320, 180
        kr, kb = (0.2126, 0.0722) if self.matrix == "bt709" else (0.299, 0.114)
        planes = np.empty((height * 3 // 2, width), np.uint8)
        chroma = planes[height:].reshape(2, height // 2, width // 2)
        for half, (r, b) in enumerate(((0.9, 0.1), (0.1, 0.9))):
            luma = kr * r + kb * b + (1 - kr - kb) * 0.1
            columns = slice(half * width // 2, (half + 1) * width // 2)
            planes[:height, columns] = round(16 + 219 * luma)
            columns = slice(half * width // 4, (half + 1) * width // 4)
            chroma[0, :, columns] = round(128 + 224 * (b - luma) / (2 * (1 - kb)))
            chroma[1, :, columns] = round(128 + 224 * (r - luma) / (2 * (1 - kr)))
        found = ovpipe.Detections.of([[40, 60, 120, 150]], [0.87], [1], {1: "cat"})
        while not self.context.stopping:
            data = self.loan(planes.shape, np.uint8)
            data[:] = planes
            image = ovpipe.Image(data, "i420", self.matrix)
            yield ovpipe.Frame(image=image, detections=found)
            time.sleep(0.1)
