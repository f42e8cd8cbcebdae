"""Fits in the making: the census and its sample, starts and their race, the steps, and what came of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from dask_em import store
from dask_em.callbacks.checkpoint import Checkpoint, CheckpointWriter, check_belongs, described, read_checkpoint
from dask_em.climbing import Start, stopped
from dask_em.config import option
from dask_em.derived import grown_starts
from dask_em.distinct import Distinct, few
from dask_em.engine import EStep, Fit, Run, Witness, one_pass
from dask_em.entry import Entry, Seeding
from dask_em.errors import ENDS_ONE, ColumnError, DaskEMError, DataChangedError, DataError, RowError
from dask_em.executors.examine import refused
from dask_em.executors.summary import SummaryExecutor, SummarySource
from dask_em.executors.threads import ThreadsExecutor
from dask_em.hashing import Fold, priorities
from dask_em.history import Record, follow, n_steps
from dask_em.initialize import Census, CensusPartial, CensusRequest, refuse_fold, take_census
from dask_em.model import Chunk, Executor, Model, Params, Source
from dask_em.race import given_up, make_starts, race
from dask_em.resident import STRETCH, ResidentSample, useful_rows
from dask_em.restarts import raced, start_records
from dask_em.result import FitResult, explain
from dask_em.settings import Settings
from dask_em.solvers import make_solver
from dask_em.solvers.ascent import hidden_entropy
from dask_em.solvers.saddle import PastSaddles
from dask_em.sources.array import ArraySource
from dask_em.sparse import from_parts, refuse_sparse, source_row_bytes, to_parts
from dask_em.uninformed import told

for _stored in (Census, Witness):
    store.register(_stored)


class Job:
    """Fits being prepared, run and summed up."""

    fit: Fit

    def __init__(
        self,
        entries: Sequence[Entry],
        source: Source,
        settings: Settings,
        executor: Executor,
        progress: Any,
        fold: Fold | None,
        penalty: Callable[[Model, float], float] | None = None,
        criterion: str | None = None,
    ) -> None:
        self.penalty, self.criterion = penalty, criterion
        self.until = None if settings.time_limit is None else time.monotonic() + settings.time_limit
        self.entries, self.source, self.settings, self.executor = entries, source, settings, executor
        self.progress, self.fold = progress, fold
        self.beaten: list[list[Record]] = [[] for _ in entries]
        self.failed: dict[int, DaskEMError] = {}  # entries that cannot be fitted to this data, and why

    def prepare(self) -> None:
        """Make `fit`: resumed from its checkpoint, or begun with a census and starts."""
        for entry in self.entries:
            refuse_sparse(getattr(self.source, "sparse", False), entry.model)
        s = self.settings
        options = None if s.checkpoint_options is None else dict(s.checkpoint_options)
        found = None if s.checkpoint is None else read_checkpoint(s.checkpoint, options)
        self.seed = s.seed_or(None if found is None else found.identity.get("random_state"))
        belongs = self._belongs()
        if found is not None and s.checkpoint is not None:
            check_belongs(found, s.checkpoint, belongs, self.source.fingerprint)
        if found is not None and found.sample is not None:
            self.census = found.census
            x, w, ids = found.sample
            self._settle(None, ResidentSample(Chunk(from_parts(x), w, ids)))
        else:
            self.census, found_rows = self._take_census()
            if found is not None and found.census.witness != self.census.witness:
                raise DataChangedError(
                    f"the data changed between passes: {self.source.where} does not hold what "
                    f"it held when {s.checkpoint} was begun; fit again, with another checkpoint"
                )
            self._keep(found_rows)
        if found is not None:
            self.failed |= {group: DataError(why) for group, why in enumerate(found.failed) if why is not None}
        models = self._informed()
        self.history = [self.census.record]
        if found is None:
            runs = self._begin(models)
        else:
            self.beaten, self.history = found.beaten, list(found.history)
            runs = found.going_on(models)
        self.fit = Fit(
            runs, self.rows, self.solver, self.reader, None if self.complete else self.census.witness, self.history,
            max_passes=s.max_passes + self._seedings(), resident=self.resident, fold=self.fold,
            in_memory=self.complete, drop=True, failed=self.failed,
        )  # fmt: skip
        if self.penalty is not None:
            self.fit.penalties = {run.group: self.penalty(run.model, self.census.moments.weight) for run in runs}
        if s.checkpoint is not None and not any(r.state.status in ("interrupted", "time_limit") for r in runs):
            kept = self.resident.chunk
            stored = None if self.complete else (to_parts(kept.x), kept.weight, kept.sequence)
            whole = Checkpoint(belongs, self.source.fingerprint, self.census, stored, [], self.beaten, [])
            self.fit.callbacks = [CheckpointWriter(s.checkpoint, whole, options)]

    def _belongs(self) -> dict[str, Any]:
        """What the course of the fits depends on, the data aside."""
        s = self.settings
        return {
            "criterion": self.criterion,
            "solver": described(s.solver),
            "tol": float(s.tol),
            "n_init": int(s.n_init) if len(self.entries) == 1 else [e.n_init or s.n_init for e in self.entries],
            "random_state": self.seed,
            "sample_bytes": self._sample_bytes(),
            "model": [described(e.model) for e in self.entries],
            "start": [described(e.params) for e in self.entries],
            "begin": [described(getattr(e.begin, "__self__", None)) for e in self.entries],
            "seeding": [e.seeding is not None for e in self.entries],
            "fold": described(self.fold),
        }

    # ---- census and sample

    def _sample_bytes(self) -> int:
        return int(self.settings.sample_bytes or option("sample-bytes"))

    def _take_census(self) -> tuple[Census, CensusPartial]:
        if self.progress is not None:
            self.progress.census(len(self.source.blocks))
        models = [e.model for e in self.entries]
        request = CensusRequest(
            self._capacity(),
            self.seed,
            accepts_nan=any(m.accepts_nan for m in models),
            fold=self.fold,
            models=tuple(models),
            summary=self._summary(),
            stretch=STRETCH if any(m.sequential for m in models) else 1,
        )
        told = None if self.progress is None else self.progress.on_progress
        census, found = take_census(self.source, self.executor, request, progress=told)
        moments = census.moments
        for group, (entry, refusal) in enumerate(zip(self.entries, found.refusals, strict=True)):
            with self._tolerating(group):
                if refusal is not None:
                    block, error = refusal
                    if isinstance(error, RowError):
                        raise refused(error, self.source.blocks[block], self.source.feature_names)
                    raise error
                try:
                    entry.model.check_data(moments.counted, moments.low, moments.high)
                except ColumnError as error:
                    raise error.named(self.source.feature_names) from None
                if self.criterion == "icl" and not _classifies(entry.model, moments):
                    raise DataError(
                        "ICL weighs how surely rows belong to their components, and this model has missing values or "
                        "factors that are hidden as well: use the criterion 'bic'"
                    )
        return census, found

    def _summary(self) -> Callable[[Chunk], Any] | None:
        """What sums up the rows for all that is asked of them, if anything does."""
        first, *others = (entry.model.summary for entry in self.entries)
        if self.fold is not None or others.count(first) < len(others):
            return None
        drawn = [entry.resampling for entry in self.entries if entry.resampling is not None]
        if drawn and not (first == Distinct.of and all(r.counts for r in drawn)):
            return None  # sums cannot be drawn from, and weights not as often as the rows that they are sums of
        return first

    @contextmanager
    def _tolerating(self, group: int) -> Iterator[None]:
        """Among several entries one may turn out not to fit the data; the only one, or the last, may not."""
        try:
            yield
        except ENDS_ONE as error:
            self.failed[group] = error
            if len(self.failed) == len(self.entries):
                raise next(iter(self.failed.values())) from None

    def _capacity(self) -> int:
        """Rows that the sample may hold."""
        row = source_row_bytes(self.source) + 16  # with its hash and weight
        n = self.source.n_rows
        bound = self.executor.partial_bytes
        most = self._sample_bytes() // row
        if bound is not None:  # a task merges up to 16 partial results, each as large as all if rows are not known
            most = min(most, bound // (row if n is not None else 16 * row))
        if n is None or n <= most:
            return max(1, most)
        return max(1, min(most, useful_rows(n)))

    def _keep(self, found: CensusPartial) -> None:
        """Choose which rows steps are over, and what solvers ask between them."""
        sample, counted, summary = found.sample, self.census.moments.counted, found.summary
        where = self.source.where
        if isinstance(summary, Chunk) and few(summary, counted):
            ranked = ResidentSample.ranked(summary, priorities(self.seed, summary))
            self._settle(ArraySource(summary.x, weight=summary.weight, where=where), ranked)
            return
        if summary is not None and not isinstance(summary, Chunk):
            self._settle(SummarySource(summary, self.source, counted), ResidentSample.drawn(sample, counted))
            return
        if len(sample.keys) < counted:  # a sample indeed
            if self.fold is not None and sample.held is not None:
                refuse_fold(self.fold, found.held, counted)
                sample = sample.taken(np.flatnonzero(~sample.held))
                if not len(sample.keys):
                    raise DataError(
                        f"held_out={self.fold.share} leaves no row of the sample to learn from: use a smaller share, "
                        "or a larger sample_bytes"
                    )
            self._settle(None, ResidentSample.drawn(sample, counted))
            return
        whole = sample.chunk()
        rows = ArraySource(whole.x, weight=whole.weight, sequence=whole.sequence, where=where)
        if self.fold is not None:  # which now numbers the rows as they lie in memory
            held = np.concatenate([self.fold.holds(b.index, b.rows or 0) for b in rows.blocks])
            refuse_fold(self.fold, int(np.count_nonzero(held)), counted)
            sample = sample.taken(np.flatnonzero(~held))
        self._settle(rows, ResidentSample.drawn(sample, len(sample.keys)))

    def _settle(self, rows: ArraySource | SummarySource | None, resident: ResidentSample) -> None:
        self.resident = resident
        self.complete = rows is not None  # in memory: the data is not read again
        self.rows: Source = self.source if rows is None else rows
        self.reader: Executor = self.executor
        if rows is not None:
            self.reader = SummaryExecutor() if isinstance(rows, SummarySource) else ThreadsExecutor()
        if resident.rows == 0:
            raise DataError("no row has a positive weight: nothing can be learned from the data")
        n = self.census.moments.counted
        if rows is not None:  # what few rows, or a summary, are asked of costs little
            n = resident.rows if isinstance(rows, SummarySource) else rows.x.shape[0]
        models = [entry.model for entry in self.entries]
        plain = next((model for model in models if not model.accelerates), models[0])  # decides for all
        self.solver = make_solver(
            self.settings.solver, plain, tol=float(self.settings.tol), rows=n, sampled=resident.rows,
            in_memory=self.complete,
            certified=not isinstance(rows, SummarySource),  # which stands for rows that are not there
        )  # fmt: skip
        hidden = not all(_classifies(model, self.census.moments) for model in models)
        if isinstance(rows, SummarySource) and plain.accelerates and hidden:  # to look around costs little there
            self.solver = PastSaddles(self.solver)

    # ---- starts

    def _informed(self) -> list[Model]:
        """The models, told what the census says of the columns."""
        moments, models, n = self.census.moments, [], self.census.n_sequences
        for group, entry in enumerate(self.entries):
            model = entry.model.of_sequences(n, moments.rows)
            if group not in self.failed:
                with self._tolerating(group):
                    model = model.within(moments.low, moments.high).about(moments.mean).in_units_of(moments.variance)
            models.append(model)
        return models

    def _begin(self, models: Sequence[Model]) -> list[Run]:
        """The runs that steps over all rows begin with; a larger model has starts that are made of smaller ones."""
        runs, hurry = list[Run](), False
        reached: list[tuple[Model, Params]] = []
        by_size = sorted(range(len(models)), key=lambda group: models[group].nbytes(self.source.n_features))
        for nth, group in enumerate(by_size, 1):
            if group in self.failed:
                continue
            if self.progress is not None:
                self.progress.sample(nth, len(by_size))
            with self._tolerating(group):
                try:
                    own = self._begin_one(group, self.entries[group], models[group], hurry, reached)
                except KeyboardInterrupt:
                    if not runs or hurry:
                        raise
                    own = self._begin_one(group, self.entries[group], models[group], True, reached)
                hurry = hurry or any(run.state.status == "interrupted" for run in own)
                reached.append((models[group], own[0].state.params))
                runs += own
        if hurry:  # nor do those go on that were ready
            runs = [replace(run, state=_not_begun(run.state, "interrupted")) for run in runs]
        return sorted(runs, key=lambda run: run.group)

    def _begin_one(
        self, group: int, entry: Entry, model: Model, hurry: bool, smaller: Sequence[tuple[Model, Params]]
    ) -> list[Run]:
        if entry.params is not None:
            begun = [self.solver.begin(model, model.within_bounds(p)) for p in entry.params]
            return [Run(model, s, group, i, resampling=entry.resampling) for i, s in enumerate(begun)]
        if entry.seeding is not None:
            return [Run(model, self.solver.begin(model, self._seeded(entry.seeding)), group)]
        n_init = entry.n_init or self.settings.n_init
        starts, void = make_starts(model, self.resident, n_init, self.seed, entry.begin, self.until)
        if entry.grows and not hurry:
            starts += grown_starts(model, self.resident, smaller, self.seed, n_init, self.until)
        if hurry:  # the race of another entry was interrupted: nobody wants to wait for this one
            starts = given_up(starts)
        if isinstance(self.rows, SummarySource) or not model.raced:  # a summary answers sooner than any rows
            finalists, others = starts, list[Start]()
        else:
            polish = self.resident.rows < self.census.moments.counted
            finalists, others = race(
                model, self.resident, starts, polish=polish, moves=self.seed if entry.grows else None, until=self.until
            )
        self.beaten[group] = [raced(s) for s in (*void, *others)]
        return [Run(model, self._first_state(model, s), group, s.number, moves=s.moves) for s in finalists]

    def _seeded(self, seeding: Seeding) -> Params:
        """Where steps of their own say to begin."""
        told = None
        if self.progress is not None:
            self.progress.seeds()
            told = self.progress.on_progress
        witness = None if self.complete else self.census.witness
        params, records = seeding(self.rows, self.reader, self.seed, witness=witness, progress=told)
        follow(self.history, records, resident=self.complete)
        return params

    def _seedings(self) -> int:
        """Steps that found where to begin, which no limit counts."""
        return sum(record["runs"] == 0 for record in self.history[1:])

    def _first_state(self, model: Model, start: Start) -> Any:
        state = self.solver.begin(model, start.state.params)
        return _not_begun(state, start.state.status) if stopped([start]) else state

    # ---- results

    def look(self) -> None:
        """Ask what a limit left unknown: the log-likelihood of parameters that no step has looked at.

        Only rows in memory are asked, which costs no read of the data.
        """
        for i, run in enumerate(self.fit.runs):
            if not self.complete or run.state.n_steps or run.state.status not in ("max_passes", "time_limit"):
                continue
            params = run.state.params
            found = one_pass(self.rows, [EStep(run.model, (params,), self.fold)], self.reader).answers[0]
            loglik = found[0].total_loglik + run.model.log_prior(params)
            entropy = hidden_entropy(run.model, params, found[0])
            state = replace(run.state, loglik=loglik, weight=found[0].weight, entropy=entropy)
            held_out = None if self.fold is None else float(found[1].total_loglik)
            self.fit.runs[i] = replace(run, state=state, held_out=held_out)

    def result(self, group: int) -> FitResult | DaskEMError:
        """What one of the fits gave, or why it could not be made."""
        if group in self.failed:
            return self.failed[group]
        own = [i for i, run in enumerate(self.fit.runs) if run.group == group]
        best = self.fit.runs[self.fit.best_of(own)]
        state, moments = best.state, self.census.moments
        status, message = explain(best.model, state)
        summary = self.rows.summary if isinstance(self.rows, SummarySource) else None
        whole = self.complete and self.resident.rows == self.rows.n_rows
        uninformed = told(
            best.model, state.params, moments, self.resident.chunk,
            summary=summary, whole=whole, names=self.source.feature_names,
        )  # fmt: skip
        return FitResult(
            model=best.model,
            params=state.params,
            loglik=best.model.reported(state.params, float(state.loglik)),
            status=status,
            message="; ".join([message, *uninformed]),
            uninformed=tuple(uninformed),
            n_passes=self.fit.n_passes,
            n_steps=n_steps(self.fit.history),
            n_rows=moments.rows,
            weight=moments.weight,
            fingerprint=self.source.fingerprint,
            history=self.fit.history,
            restarts=start_records(
                [self.fit.runs[i] for i in own], self.beaten[group], moments, self.resident, in_memory=self.complete
            ),
            trained_weight=float(state.weight),
            entropy=float(state.entropy) if _classifies(best.model, moments) else float("nan"),
            held_out=best.held_out,
            summary=summary,
        )


def _classifies(model: Model, moments: Any) -> bool:
    return model.hides_classes_only(bool(moments.missing.any()))


def _not_begun(state: Any, status: str) -> Any:
    by = (
        "an interrupt"
        if status == "interrupted"
        else "the time limit, within the race for starts, after which a checkpoint begins"
    )
    note = f"stopped by {by}, with parameters that were fitted to a sample of the rows only"
    return replace(state, loglik=np.nan, status=status, note=note)
