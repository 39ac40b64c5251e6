"""Reviews as data sets: which images and objects are read, and hostile files in their place."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from small_reviews import small_review

from deixis.data.formats import format_of, read_dataset
from deixis.data.formats.review.schema import TABLES
from deixis.errors import DataError
from deixis.review import actions


def empty_review() -> bytes:
    """A review without images."""
    with closing(sqlite3.connect(":memory:")) as review:
        review.executescript(TABLES + "INSERT INTO facts VALUES ('version', '1');")
        return review.serialize()


RECOGNISED = {"review": {"review.db": empty_review(), "a.jpg": ""}}


def example(folder: Path) -> None:
    """Two images with boxes, all reviewed."""
    with small_review(folder, with_model=False) as store:
        for number in (1, 2, 3):
            actions.finish_image(store, number, version=1, annotator="ann")


def test_what_is_read_is_what_was_accepted(tmp_path: Path) -> None:
    with small_review(tmp_path) as store:
        first, dog, cat, found_cat, found = store.rows("SELECT * FROM objects ORDER BY id")
        assert (found["origin"], found["image"], found["score"]) == ("model", 3, 0.7)
        with pytest.raises(DataError, match="no image is reviewed yet"):
            read_dataset(store.file)
        actions.act_on_object(store, "accept", first["id"], version=1, annotator="ann")
        actions.act_on_object(store, "rename", dog["id"], version=1, annotator="ann", label="größe")
        actions.act_on_object(store, "reject", cat["id"], version=1, annotator="bob")
        actions.act_on_object(store, "move", found_cat["id"], version=1, annotator="bob", box=[5, 5, 25, 17])
        open_too = read_dataset(store.file)  # while it is open, and its log not yet in the file
        assert [len(open_too[i].instances) for i in range(len(open_too))] == [1, 2]
    read = read_dataset(tmp_path)
    assert read.vocabulary.names == ("cat", "<b>dog</b>", "größe")
    assert read.vocabulary.category_ids == (7, 3, 5)
    assert [read[i].image_id for i in range(2)] == [10, 20], "nobody judged the third"
    assert read[1].instances.class_ids.tolist() == [2, 0]
    assert read[1].instances.boxes_xyxy_px.tolist() == [[5, 5, 25, 15], [5, 5, 25, 17]]
    everything = read_dataset(tmp_path / "review.db#all")
    assert [len(everything[i].instances) for i in range(3)] == [1, 2, 0], "a prediction that nobody saw is no label"
    before = read_dataset(f"{tmp_path}#before")
    assert before[1].instances.class_ids.tolist() == [1, 0]
    with pytest.raises(DataError, match="has the parts reviewed, all, before; got 'val'"):
        read_dataset(f"{tmp_path}#val")


def test_an_image_that_is_finished_without_objects_is_read(tmp_path: Path) -> None:
    with small_review(tmp_path, with_model=False) as store:
        actions.finish_image(store, 3, version=1, annotator="ann")
    assert [len(one.instances) for one in map(read_dataset(tmp_path).__getitem__, range(1))] == [0]


def test_an_image_without_labels_is_read_once_a_person_finishes_it(tmp_path: Path) -> None:
    """That what was drawn or found so far is judged does not say that it is all."""
    with small_review(tmp_path) as store:
        with store.changing():
            store.write("UPDATE images SET labelled = 0")
        actions.act_on_object(store, "accept", 5, version=1, annotator="ann")
        actions.add_object(store, 3, "cat", annotator="ann", box=[0, 0, 9, 9])
        with pytest.raises(DataError, match="no image is reviewed yet"):
            read_dataset(store.file)
        actions.finish_image(store, 3, version=store.row("images", 3)["version"], annotator="ann")
        assert len(read_dataset(store.file)[0].instances) == 2


def test_masks_are_kept_where_every_object_has_one(tmp_path: Path) -> None:
    with small_review(tmp_path, with_model=False) as store:
        mask = {"size": [40, 60], "counts": [405, 10, 30, 10, 1945]}
        actions.add_object(store, 3, "cat", annotator="ann", mask=mask)
        actions.finish_image(store, 3, version=2, annotator="ann")
    found = read_dataset(tmp_path)[0].instances
    assert found.boxes_xyxy_px.tolist() == [[10, 5, 12, 15]]
    assert found.areas_px.tolist() == [20]
    assert found.masks_rle is not None


def test_a_folder_with_other_annotations_is_theirs(tmp_path: Path) -> None:
    example(tmp_path)
    assert format_of(tmp_path) == "review"
    (tmp_path / "labels.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert format_of(tmp_path) == "coco"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE facts SET value = '2' WHERE name = 'version'", "is a review of version 2"),
        ("DROP TABLE actions", "is an SQLite file, but no review"),
        ("UPDATE images SET file = 'gone.png'", "image files not found, the first is 'gone.png'"),
        ("UPDATE images SET width = -4", "image size"),
        ("UPDATE objects SET label = 'unheard of'", "unheard of"),
        ("UPDATE objects SET x1 = 'left'", "review.db: image 1"),
        ("""UPDATE objects SET mask = '{"size": [1, 1], "counts": "1"}'""", "mask of size"),
    ],
)
def test_faults_are_one_line(statement: str, said: str, tmp_path: Path) -> None:
    example(tmp_path)
    file = tmp_path / "review.db"
    with closing(sqlite3.connect(file)) as review, review:
        review.execute(statement)
    with pytest.raises(DataError, match=said) as caught:
        read_dataset(file, format="review")
    assert "\n" not in str(caught.value)


def test_a_view_in_the_place_of_a_table_is_not_read(tmp_path: Path) -> None:
    """It could compute without end."""
    file = tmp_path / "review.db"
    file.write_bytes(empty_review())
    with closing(sqlite3.connect(file)) as review, review:
        review.execute("DROP TABLE images")
        review.execute(
            "CREATE VIEW images AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id FROM n"
        )
    with pytest.raises(DataError, match="is an SQLite file, but no review"):
        read_dataset(file, format="review")
