from keypoint_detection.data.sampling import EpochSampler


def sampler(n_images=10, n_processes=1, process=0, seed=0, epoch=0, n_skipped=0, shuffle=True):
    return EpochSampler(range(n_images), n_processes, process, seed, epoch, n_skipped, shuffle)


def positions(draws):
    return [draw.position for draw in draws]


def test_an_epoch_holds_every_image_once_in_an_order_of_its_own():
    one = sampler()
    first = positions(one)
    one.set_epoch(1)
    second = positions(one)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert positions(sampler(epoch=1)) == second


def test_an_epoch_can_be_resumed_in_its_middle_and_the_next_one_is_whole():
    whole, rest = list(sampler(epoch=3)), sampler(epoch=3, n_skipped=4)
    assert list(rest) == whole[4:]
    rest.set_epoch(4)
    assert len(list(rest)) == len(rest) == 10


def test_processes_share_an_epoch():
    parts = [positions(sampler(n_processes=3, process=process)) for process in range(3)]
    assert {len(part) for part in parts} == {4}
    assert set().union(*parts) == set(range(10))


def test_every_image_has_another_seed_in_every_epoch_and_training():
    seeds = [draw.seed for epoch in (0, 1) for seed in (0, 1) for draw in sampler(epoch=epoch, seed=seed)]
    assert len(seeds) == len(set(seeds)) == 40


def test_without_shuffling_the_order_is_that_of_the_file():
    assert positions(sampler(shuffle=False)) == list(range(10))
