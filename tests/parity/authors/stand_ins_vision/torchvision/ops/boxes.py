"""Areas of corner boxes; suppression is imported there and never called."""


def box_area(boxes):
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def nms(*_):
    raise NotImplementedError
