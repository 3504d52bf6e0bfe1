"""The ways in which the core is broken on purpose: name, module, what is there, what is put there.

Owns the list.  Refuses to know how a broken core is found; see `mutants`.
"""
# ruff: noqa: E501  (what is replaced is shown as it is)

from __future__ import annotations

# What comes about so seldom that a hunt may not find it: the command hunts these too.  The tests of
# the core find each of them.
SELDOM_SEEN = frozenset(
    {
        "a close that hangs takes a place for ever",
        "two inits as close as may be",
        "what expired during the pop is lent",
        "who was met busy is put back as if nobody had looked for it",
    }
)

MUTATIONS: tuple[tuple[str, str, str, str], ...] = (
    # -- machine: the doors
    (
        "a place is never given back by put_back",
        "straight.py",
        "entry.in_use, entry.listed = 0, True; group.free.append(entry)",
        "entry.listed = True; group.free.append(entry)",
    ),
    ("take lends a conn that is used", "machine.py", "                and not entry.in_use\n", ""),
    (
        "take lends a conn that is not ready",
        "machine.py",
        "                entry.state is READY\n                and not entry.in_use",
        "                not entry.in_use",
    ),
    (
        "take does not look at the filter",
        "machine.py",
        "(filter is None or self._head_passes(filter, entry, who, now))",
        "True",
    ),
    (
        "take does not see that time has passed",
        "machine.py",
        '''        what time has changed is behind one comparison.
        """
        if now >= self.due:
            self.tick(now)
''',
        '''        what time has changed is behind one comparison.
        """
''',
    ),
    (
        "who comes back serves nobody who waits",
        "supplying.py",
        "        elif self.waiting and (group.line is None or group.line.needs):\n"
        "            self._serve(entry, now)\n",
        "",
    ),
    (
        "put_back does not put the conn back",
        "straight.py",
        "entry.in_use, entry.listed = 0, True; group.free.append(entry)",
        "entry.in_use, entry.listed = 0, True",
    ),
    (
        "a granted ticket that is cancelled keeps its place",
        "machine.py",
        "            ticket.entry.leave_place(ticket.who)\n",
        "",
    ),
    (
        "a cancelled place is handed on to nobody",
        "machine.py",
        "            self._returned(ticket.entry, now)\n",
        "",
    ),
    (
        "who moves goes to the end of the line",
        "waiting.py",
        "            self.deadline,\n            self.place,\n            cause,",
        "            self.deadline,\n            None,\n            cause,",
    ),
    (
        "a conn that says Busy does not rest",
        "machine.py",
        "return revive.after_refusal(ended.rest, trouble.refusals)",
        "return 0.0",
    ),
    (
        "a failing conn is never charged",
        "machine.py",
        "return max(ended.rest, self._charge(entry, method, started, now))",
        "return ended.rest",
    ),
    (
        "a mean of all calls is that of the last",
        "straight.py",
        "stat.spent = spent + (now - started - spent * stat.fading)",
        "stat.spent = now - started",
    ),
    # -- the straight path
    (
        "borrow does not see that time has passed",
        "straight.py",
        "            if not free or now >= self.due:\n",
        "            if not free:\n",
    ),
    (
        "put_back does not look at who waits",
        "straight.py",
        "entry.quick and not (group := entry.group).gate: entry.in_use, entry.listed = 0, True",
        "entry.quick and (group := entry.group): entry.in_use, entry.listed = 0, True",
    ),
    (
        "put_back does not look whether the conn is well",
        "straight.py",
        "entry.quick and not (group := entry.group).gate: entry.in_use, entry.listed = 0, True",
        "not (group := entry.group).gate: entry.in_use, entry.listed = 0, True",
    ),
    (
        "put_back overlooks those who starve",
        "openings.py",
        "self.in_turn = self.turns_only or bool(self._starved)",
        "self.in_turn = self.turns_only",
    ),
    (
        "a conn in trouble is quick",
        "entry.py",
        "return self.users is None and self.trouble is None and self.away is None",
        "return self.users is None and self.away is None",
    ),
    (
        "a conn with several places is quick",
        "entry.py",
        "return self.users is None and self.trouble is None and self.away is None",
        "return self.trouble is None and self.away is None",
    ),
    (
        "a gate that has closed stays closed",
        "candidates.py",
        "        self.gate = SEVERAL if self.line is None else self.line.needs\n",
        "        self.gate = ()\n",
    ),
    # -- the line
    (
        "a moved call is put at the end",
        "waiting.py",
        "if len(tickets) > 1 and ticket.order < tickets[-2].order:",
        "if False:",
    ),
    (
        "deadlines are never over",
        "hoping.py",
        "        while (ticket := self._deadlines.pop(now)) is not None:",
        "        while False and (ticket := self._deadlines.pop(now)) is not None:",
    ),
    (
        "the impatient are forgotten",
        "patience.py",
        "            heapq.heappush(self._heap, (deadline, number, ticket))\n",
        "            pass\n",
    ),
    (
        "the last in line is served first",
        "desk.py",
        "ticket = tickets.popleft()",
        "ticket = tickets.pop()",
    ),
    (
        "of several needs that is served whose first was first once",
        "waiting.py",
        "            if order == (place, arrived):\n",
        "            if True:\n",
    ),
    (
        "a need that comes later has no place in the order",
        "waiting.py",
        "        heapq.heappush(heap, self._item(need))\n",
        "",
    ),
    (
        "a need that was passed over has no place in the order",
        "waiting.py",
        "            heapq.heappush(heap, item)\n",
        "            pass\n",
    ),
    (
        "filters are not asked for those who wait",
        "desk.py",
        "need.size if need.filter is None else self._first_is_served(need, entry, now)",
        "need.size",
    ),
    (
        "methods are not looked at for those who wait",
        "desk.py",
        "            if (need.method is ANY or has(group.methods, need.method)) and (",
        "            if (",
    ),
    (
        "who waits in vain is never told",
        "hoping.py",
        "                if need.witness is lost or need.witness is maker:\n",
        "                if False:\n",
    ),
    (
        "who would wait for himself may",
        "desk.py",
        "        if alone or self._holds(hope, ticket):\n",
        "        if alone:\n",
    ),
    (
        "who holds what others now hope for may wait for himself",
        "hoping.py",
        "        if need.alone or not held:\n",
        "        if True:\n",
    ),
    (
        "who uses what has died may wait for himself",
        "hoping.py",
        "                if need.alone and need.witness is entry:\n",
        "                if False:\n",
    ),
    (
        "what only the caller himself could give back is a hope",
        "hoping.py",
        "            if passes and not _is_own(entry, ticket):\n",
        "            if passes:\n",
    ),
    (
        "a supply is a hope though it brings no more",
        "hoping.py",
        "return supply if _may_make(supply, ticket) and self._brings_more(supply, ticket) else None",
        "return supply if _may_make(supply, ticket) else None",
    ),
    (
        "no limit of those who wait",
        "desk.py",
        "if ticket.place is None and self.waiting >= most:",
        "if False:",
    ),
    (
        "a moved call is refused by a full line",
        "desk.py",
        "if ticket.place is None and self.waiting >= most:",
        "if self.waiting >= most:",
    ),
    # -- lending
    (
        "all places but one are lent",
        "candidates.py",
        "return entry.state is READY and entry.in_use < entry.capacity and entry.claim is None",
        "return entry.state is READY and entry.in_use < entry.capacity - 1 and entry.claim is None",
    ),
    (
        "one place too many is lent",
        "candidates.py",
        "return entry.state is READY and entry.in_use < entry.capacity and entry.claim is None",
        "return entry.state is READY and entry.in_use <= entry.capacity and entry.claim is None",
    ),
    (
        "a shared conn leaves the rotation",
        "lending.py",
        "entry.listed = entry.in_use < entry.capacity",
        "entry.listed = False",
    ),
    (
        "groups that were empty are forgotten",
        "candidates.py",
        "            offer.rotation.append(self)\n",
        "            pass\n",
    ),
    # -- life
    (
        "a conn never expires",
        "care.py",
        "            entry.expires = entry.last_init + entry.ttl\n",
        "            entry.expires = math.inf\n",
    ),
    (
        "a conn never stops resting",
        "care.py",
        "        self._arm(entry, entry.rest_until)\n\n    def _move",
        "\n    def _move",
    ),
    (
        "a rest is cut short by a shorter one",
        "care.py",
        "entry.rest_until = max(entry.rest_until, now + seconds)",
        "entry.rest_until = now + seconds",
    ),
    (
        "a dead conn is not closed before it is opened again",
        "life.py",
        "        elif entry.open:\n            if not entry.in_use or entry.broken:",
        "        elif entry.open and entry.state is not REVIVING:\n"
        "            if not entry.in_use or entry.broken:",
    ),
    (
        "a conn is closed under those who use it",
        "life.py",
        "            if not entry.in_use or entry.broken:\n",
        "            if True:\n",
    ),
    (
        "one that ended in good order is revived",
        "life.py",
        'return entry.revive == "force" or (bool(entry.revive) and reason != outcome.DONE)',
        "return bool(entry.revive)",
    ),
    (
        "nothing is ever revived",
        "life.py",
        'return entry.revive == "force" or (bool(entry.revive) and reason != outcome.DONE)',
        "return False",
    ),
    (
        "two inits as close as may be",
        "life.py",
        "return max(now, entry.last_init + SHORTEST_LIFE)",
        "return now",
    ),
    (
        "deaths in a row are not counted",
        "life.py",
        "        streak = entry.falter()\n",
        "        streak = 1\n",
    ),
    (
        "after failed inits there is no pause",
        "life.py",
        "            entry.rest_until = now + wait\n",
        "            entry.rest_until = now\n",
    ),
    (
        "what came too late is not closed",
        "life.py",
        "            self._close(entry, outcome.POOL_CLOSED, now).info = None  # it was never announced\n",
        "            pass\n",
    ),
    (
        "a conn born again has its old time",
        "life.py",
        '        entry.broken, entry.reason = False, ""\n        self._set_ttl(entry, now)\n',
        '        entry.broken, entry.reason = False, ""\n',
    ),
    (
        "a pop does not wait for those who call",
        "life.py",
        "if not pop.done and pop.begun and not any(e.in_use or e.permit for e in pop.entries):",
        "if not pop.done and pop.begun:",
    ),
    (
        "a close that hangs takes a place for ever",
        "openings.py",
        "        if entry.state is DRAINING and not entry.in_use and entry.popper is None:\n",
        "        if False:\n",
    ),
    (
        "a slot is never given back",
        "openings.py",
        "        self._connecting -= permit.holds_slot\n",
        "",
    ),
    (
        "as many are opened at once as are asked for",
        "openings.py",
        "while self._to_open and self._connecting < self.options.max_connecting:",
        "while self._to_open:",
    ),
    (
        "the slot is given on before the failure is known",
        "openings.py",
        "        self._give_slot_back(permit)\n\n    def _disown",
        "        self._free_slot(permit, now)\n\n    def _disown",
    ),
    # -- care
    (
        "who hangs in its check is waited for",
        "care.py",
        "            if entry.state is CHECKING:\n                self._retire(entry, outcome.DEAD, now, late)\n"
        "            else:\n                entry.reason = entry.reason or outcome.DEAD  # should it be put back\n"
        "                self._onward(entry, now)\n",
        "            pass\n",
    ),
    (
        "the peers of a dead conn are not suspected",
        "care.py",
        "        if dead.group is None or not dead.group.askable:\n",
        "        if True:\n",
    ),
    (
        "a check that failed is no matter",
        "care.py",
        "        elif error is not None:\n            self._retire(entry, outcome.DEAD, now, error)\n",
        "",
    ),
    (
        "one that cannot be opened in time is waited for",
        "care.py",
        "            self._stillborn(entry, entry.supply, late, now)\n",
        "            pass\n",
    ),
    (
        "idle conns stay",
        "care.py",
        "if now >= entry.idle_since + supply.max_idle and supply.has_spare:",
        "if False:",
    ),
    (
        "the last idle conn leaves too",
        "supply.py",
        "return self.size - self.unborn - self.leaving > self.min_size",
        "return self.size - self.unborn - self.leaving > 0",
    ),
    (
        "what is not born yet is a spare",
        "supply.py",
        "return self.size - self.unborn - self.leaving > self.min_size",
        "return self.size - self.leaving > self.min_size",
    ),
    (
        "what leaves is a spare",
        "supply.py",
        "return self.size - self.unborn - self.leaving > self.min_size",
        "return self.size - self.unborn > self.min_size",
    ),
    # -- supplies
    (
        "a supply does not count those on their way",
        "supply.py",
        "asked = max(missing, waiting - self.unborn, self.owed)",
        "asked = max(missing, waiting, self.owed)",
    ),
    (
        "a supply has no largest size",
        "supply.py",
        "room = self.max_size - self.size\n",
        "room = 1000\n",
    ),
    (
        "a supply has no smallest size",
        "supply.py",
        "asked = max(missing, waiting - self.unborn, self.owed)",
        "asked = max(0, waiting - self.unborn, self.owed)",
    ),
    (
        "the dead are not replaced",
        "supply.py",
        "asked = max(missing, waiting - self.unborn, self.owed)",
        "asked = max(missing, waiting - self.unborn)",
    ),
    (
        "a failing supply is stormed",
        "supply.py",
        "            room = min(room, 1 - self.unborn)\n",
        "            pass\n",
    ),
    (
        "a supply makes no pause",
        "supply.py",
        "            self.retry_at = now + (min(wait, WANTED) if waiting and not self.advised else wait)\n",
        "            self.retry_at = now\n",
    ),
    (
        "never is not for ever",
        "supply.py",
        "            self.over = error\n",
        "            self.retry_at = now + 1.0\n",
    ),
    ("the pause goes on after success", "supply.py", "            self.retry_at = -math.inf\n", ""),
    (
        "those who wait do not hurry a supply",
        "supply.py",
        "            self.retry_at = min(self.retry_at, now + WANTED)\n",
        "            pass\n",
    ),
    (
        "the pool's max_size does not bind supplies",
        "openings.py",
        "        if self._has_room():\n            return True\n",
        "        if True:\n            return True\n",
    ),
    (
        "the pool's max_size does not bind conns by hand",
        "openings.py",
        "if not self._has_room():",
        "if False:",
    ),
    (
        "no idle conn makes room for another resource",
        "supplying.py",
        "        if not idle:\n            return False\n        richest",
        "        return False\n        richest",
    ),
    (
        "no busy resource ever gives way",
        "supplying.py",
        "            if not (self._starved and self._gives_way(entry, now)):\n",
        "            if True:\n",
    ),
    (
        "a conn gives way to who has come later",
        "supplying.py",
        "            if other > own:\n",
        "            if False:\n",
    ),
    (
        "a resource gives way to one that has more",
        "supplying.py",
        "            if hungry is supply or (own < math.inf and supply.size <= hungry.size):\n",
        "            if hungry is supply:\n",
    ),
    (
        "a conn gives way for nobody",
        "supplying.py",
        "            if not hungry.wanted(callers(self._listings[hungry.resource], hungry), now):\n",
        "            if False:\n",
    ),
    (
        "two give way for one who waits for a slot",
        "supplying.py",
        "            if self._has_room():\n",
        "            if False:\n",
    ),
    (
        "a conn that has just come back gives way as an idle one",
        "supplying.py",
        "            if entry.listed and other not in (None, supply)",
        "            if other not in (None, supply)",
    ),
    (
        "a withdrawn supply keeps its conns",
        "supplying.py",
        "        for entry in self._supplied(supply):\n            self._dismiss(entry, now)\n        self._starved.pop",
        "        self._starved.pop",
    ),
    (
        "a supply made smaller keeps its conns",
        "supplying.py",
        "            self._dismiss(entry, now)\n        self._recheck(supply, (",
        "            pass\n        self._recheck(supply, (",
    ),
    # -- leaving
    (
        "a pop given up puts nothing back",
        "leaving.py",
        "                self._reinstate(entry, pop.news.get(entry), now)\n",
        "                pass\n",
    ),
    (
        "what was to leave before the pop stays after it",
        "leaving.py",
        "        elif entry.reason:  # it was to leave before the pop, or has said so since\n",
        "        elif False:\n",
    ),
    (
        "what expired during the pop is lent",
        "leaving.py",
        "            self._rearm(entry, now)  # its time may have come while it was out\n",
        "",
    ),
    (
        "those who wait are not told of the close",
        "leaving.py",
        "            for ticket in listing.line.tickets():\n",
        "            for ticket in []:\n",
    ),
    (
        "a closed pool revives",
        "leaving.py",
        "            elif entry.state is REVIVING:\n                self._withdraw(entry, now, outcome.POOL_CLOSED)\n",
        "",
    ),
    (
        "abandoned conns are not closed",
        "leaving.py",
        "            if entry.open:\n                self._close(entry, outcome.POOL_CLOSED, now)\n            self._forget(entry)\n",
        "            self._forget(entry)\n",
    ),
    # -- what a call's end says
    (
        "Closed does not move the call",
        "outcome.py",
        "return Outcome(end=CLOSED, moves=True)",
        "return Outcome(end=CLOSED, error=error)",
    ),
    (
        "a torn conn goes on",
        "outcome.py",
        "    if isinstance(error, (OSError, EOFError)):\n        return Outcome(end=DEAD, error=error)\n",
        "",
    ),
    (
        "what was cut short goes on",
        "outcome.py",
        "return Outcome(end=INTERRUPTED, error=error)\n\n\ndef survives",
        "return Outcome(error=error)\n\n\ndef survives",
    ),
    (
        "a reply's rest is ignored",
        "outcome.py",
        "return Outcome(end=DONE if reply.closed is True else None, rest=rest, error=wrong)",
        "return Outcome(end=DONE if reply.closed else None, error=wrong)",
    ),
    (
        "a timer that was moved earlier rings late",
        "timers.py",
        "        if due < self.due:\n            self.due = due\n",
        "",
    ),
    (
        "an update serves nobody",
        "book.py",
        "        if entry.state is READY:\n            self._serve(entry, now)\n",
        "",
    ),
    (
        "an update disappoints nobody",
        "book.py",
        "        self._recheck(entry, entry.group.listings, now)\n",
        "",
    ),
    # -- filters given as data
    (
        "who joins the pool is not put on the shelves",
        "candidates.py",
        "        if group.index is not None:\n            group.index.add(entry)\n",
        "",
    ),
    (
        "who leaves the pool stays on the shelves",
        "candidates.py",
        "        if group.index is not None:\n            group.index.remove(entry)\n",
        "",
    ),
    (
        "a new extra is not looked at by the index",
        "book.py",
        "        old, entry.extra = entry.extra, value\n        reindex(entry)\n",
        "        old, entry.extra = entry.extra, value\n",
    ),
    (
        "an updated extra is not looked at by the index",
        "book.py",
        '            entry.extra = wanted["extra"]\n            reindex(entry)\n',
        '            entry.extra = wanted["extra"]\n',
    ),
    (
        "who was met busy is put back as if nobody had looked for it",
        "entry.py",
        "        self.away = [*(self.away or ()), *shelves]\n        self.quick = False\n",
        "        self.away = [*(self.away or ()), *shelves]\n",
    ),
    (
        "who was met busy never comes back to the row",
        "candidates.py",
        "        if entry.away is not None:\n            entry.come_back()\n",
        "",
    ),
    (
        "who comes back is forgotten by the row",
        "index.py",
        "        if entry in self.members:\n            self.row[entry] = None\n",
        "        pass\n",
    ),
    (
        "the row lends what cannot be lent",
        "index.py",
        "            if lendable(entry):\n                row.move_to_end(entry)\n",
        "            if True:\n                row.move_to_end(entry)\n",
    ),
    (
        "the first look lends what is in use",
        "index.py",
        "            if entry.state is READY and not entry.in_use:\n",
        "            if entry.state is READY:\n",
    ),
    (
        "the first look lends what is not ready",
        "index.py",
        "            if entry.state is READY and not entry.in_use:\n",
        "            if not entry.in_use:\n",
    ),
    (
        "only one of the items is looked at",
        "index.py",
        "        if self.where.passes(entry.extra):\n            self.members[entry] = None\n",
        "        if True:\n            self.members[entry] = None\n",
    ),
    (
        "a few are not asked whether they pass",
        "index.py",
        "if lendable(entry) and where.passes(entry.extra):",
        "if lendable(entry):",
    ),
    (
        "who left the shelf for another extra stays in the row",
        "index.py",
        "        self.members.pop(entry, None)\n        self.row.pop(entry, None)\n",
        "        self.members.pop(entry, None)\n",
    ),
    (
        "those in line with a filter given as data are shown to nobody",
        "sieve.py",
        "                found += _cell(column, extra, key)\n",
        "                pass\n",
    ),
    (
        "the sieve forgets those without a filter",
        "sieve.py",
        "        found = list(self.others)\n",
        "        found: list[Need] = []\n",
    ),
    (
        "who waits with data is not asked again whether it passes",
        "lending.py",
        "            return filter.passes(entry.extra)\n",
        "            return True\n",
    ),
    (
        "a filter given as data passes all that have the keys",
        "where.py",
        "return bool(extra.items() >= self)",
        "return all(key in extra for key, _ in self)",
    ),
    (
        "a supply is waited for that makes nothing that passes",
        "supply.py",
        "        if isinstance(filter, Where) and not filter.passes(self.extra):\n"
        "            return False\n",
        "",
    ),
    (
        "what was looked up leaves the rotation, and another with it",
        "lending.py",
        "            entry.stay_away()\n            return\n",
        "            entry.stay_away()\n            free.popleft()\n            return\n",
    ),
    # -- leases, claims and forks
    (
        "a lease that is released keeps its places",
        "leasing.py",
        "            entry.whole = False\n            entry.in_use = 0\n        elif",
        "            entry.whole = False\n        elif",
    ),
    (
        "a lease may end twice",
        "leasing.py",
        "        if not entry.in_use or not entry.held_by(who):\n            return False\n",
        "",
    ),
    (
        "a lost lease is told of twice",
        "leasing.py",
        "            self._tally.lost += 1\n",
        "            self._tally.lost += 1\n            self.steps.append(Forsaken(snapshot(entry, now), where))\n",
    ),
    (
        "the lookout rings once",
        "life.py",
        "                self.steps.append(LOOK)\n                self._arm(entry, now + LOOKOUT)\n",
        "                self.steps.append(LOOK)\n",
    ),
    ("the lookout rings in vain", "life.py", "                self.steps.append(LOOK)\n", ""),
    (
        "a router may choose a whole conn that is used",
        "lending.py",
        "if not (whole and e.in_use)]",
        "]",
    ),
    (
        "who takes a whole conn takes one place",
        "entry.py",
        "        self.in_use = self.capacity\n        self.user = who\n",
        "        self.in_use = 1\n        self.user = who\n",
    ),
    (
        "a call of a thread is taken for what it holds",
        "entry.py",
        "        self.users.reverse()\n        self.users.remove(who)\n        self.users.reverse()\n",
        "        self.users.remove(who)\n",
    ),
    (
        "what is kept is lent to others",
        "candidates.py",
        "return entry.state is READY and entry.in_use < entry.capacity and entry.claim is None",
        "return entry.state is READY and entry.in_use < entry.capacity",
    ),
    (
        "a conn is kept for who holds it himself",
        "desk.py",
        "waits = first.deadline > now and not entry.held_by(first.who)",
        "waits = first.deadline > now",
    ),
    (
        "who wants a whole conn keeps several",
        "desk.py",
        "if need.claim is None and waits:",
        "if waits:",
    ),
    (
        "who is served has another kept still",
        "desk.py",
        "        if need.claim is not None:\n            self._disclaim(need)\n        self.waiting -= 1\n",
        "        self.waiting -= 1\n",
    ),
    (
        "what is not kept any more serves nobody",
        "desk.py",
        "            if entry.state is READY and entry.expires > now:\n                self._serve(entry, now)\n",
        "            pass\n",
    ),
    (
        "who uses a kept conn waits for himself",
        "desk.py",
        "            if entry.claim is not None:\n                self._serve_users(entry, now)\n",
        "",
    ),
    (
        "who uses a kept conn is not let in when he comes",
        "desk.py",
        "            if free and (earlier or uses) and",
        "            if free and earlier and",
    ),
    (
        "who came before him for whom it is kept is not let in",
        "desk.py",
        "            if free and (earlier or uses) and",
        "            if free and uses and",
    ),
    (
        "a conn that leaves is kept still",
        "entry.py",
        "    if entry.claim is not None and state is not READY:\n        release_claim(entry)\n",
        "",
    ),
    (
        "a check that failed does not move the caller",
        "outcome.py",
        "        return Outcome(end=DEAD, moves=True)\n    return Outcome(end=INTERRUPTED, error=error)\n\n\ndef of_lend",
        "        return Outcome(end=DEAD, error=error)\n    return Outcome(end=INTERRUPTED, error=error)\n\n\ndef of_lend",
    ),
    (
        "a check that was cut short says nothing",
        "outcome.py",
        "        return Outcome(end=DEAD, moves=True)\n    return Outcome(end=INTERRUPTED, error=error)\n\n\ndef of_lend",
        "        return Outcome(end=DEAD, moves=True)\n    return Outcome(error=error)\n\n\ndef of_lend",
    ),
    (
        "whatever its lend raises is the conn's death",
        "outcome.py",
        "    if isinstance(error, Exception) and not isinstance(error, Closed):\n        return Outcome(error=error)\n",
        "",
    ),
    (
        "a shared block moves",
        "outcome.py",
        "return Outcome(ended.end, ended.rest, error=error) if ended.moves else ended",
        "return ended",
    ),
    (
        "a block that raised leaves a clean conn",
        "outcome.py",
        "return None if resets else Outcome(end=UNCLEAN)",
        "return None if resets else Outcome()",
    ),
    (
        "a block that was cut short leaves a clean conn",
        "outcome.py",
        "    if not isinstance(error, Exception) and survives_cancel is not True:\n        return Outcome(end=INTERRUPTED)\n",
        "",
    ),
    (
        "a conn that outlives cancellation never does",
        "outcome.py",
        "    if not isinstance(error, Exception) and survives_cancel is not True:\n        return Outcome(end=INTERRUPTED)\n",
        "    if not isinstance(error, Exception):\n        return Outcome(end=INTERRUPTED)\n",
    ),
    (
        "a whole conn is not made clean",
        "outcome.py",
        "        return None if resets and not shared else Outcome()\n",
        "        return Outcome()\n",
    ),
    (
        "a reset that failed is no matter",
        "outcome.py",
        "    return Outcome(end=UNCLEAN if isinstance(error, Exception) else INTERRUPTED)\n",
        "    return Outcome()\n",
    ),
    (
        "a torn reset says nothing of the server",
        "outcome.py",
        "    if isinstance(error, (OSError, EOFError, Closed)):\n        return Outcome(end=DEAD)\n",
        "",
    ),
    (
        "a route leads to what somebody has for himself",
        "machine.py",
        "common = [entry for entry in roll if not entry.whole]",
        "common = list(roll)",
    ),
    (
        "a supply in a child has made some already",
        "supply.py",
        "            self.min_size, self.max_size, self.max_idle, self.connect_timeout, self.ping_interval,\n        )",
        "            self.min_size, self.max_size, self.max_idle, self.connect_timeout, self.ping_interval, size=self.size,\n        )",
    ),
    (
        "a supply in a child has other sizes",
        "supply.py",
        "            self.min_size, self.max_size, self.max_idle,",
        "            0, 10, self.max_idle,",
    ),
    (
        "a spoilt conn is given back like any other",
        "leasing.py",
        "        self._ended(entry, ended.end, ended.rest, now, cause)",
        "        self._ended(entry, None, ended.rest, now, cause)",
    ),
    (
        "a block's rest is ignored",
        "leasing.py",
        "        self._ended(entry, ended.end, ended.rest, now, cause)",
        "        self._ended(entry, ended.end, 0.0, now, cause)",
    ),
    (
        "a conn that was not handed over counts as checked out",
        "leasing.py",
        "        self._tally.checkouts += not ended.moves\n",
        "        self._tally.checkouts += 1\n",
    ),
    (
        "a lost conn goes on",
        "leasing.py",
        "end=None if stays else outcome.FORSAKEN",
        "end=None",
    ),
    (
        "a lost place takes the conn from all who share it",
        "leasing.py",
        "end=None if stays else outcome.FORSAKEN",
        "end=outcome.FORSAKEN",
    ),
    (
        "of a lost lease nobody knows where it was taken",
        "leasing.py",
        "told = Forsaken(snapshot(entry, now), where, stays)",
        "told = Forsaken(snapshot(entry, now), None, stays)",
    ),
    (
        "nobody looks out when somebody queues",
        "desk.py",
        "            if self._lookout.alarm == math.inf:\n",
        "            if False:\n",
    ),
    (
        "nothing is kept for who wants it whole",
        "desk.py",
        "                        need.claim, entry.claim = entry, need\n"
        "                        self._claiming.append(need)\n",
        "                        pass\n",
    ),
    (
        "who gives up has it kept still",
        "hoping.py",
        "        if first and need.claim is not None:\n            self._disclaim(need)\n",
        "",
    ),
    (
        "hand_back forgets that the conn was held",
        "straight.py",
        "entry.in_use, entry.listed, entry.whole = 0, True, False",
        "entry.in_use, entry.listed = 0, True",
    ),
    (
        "hand_back counts nothing",
        "straight.py",
        "entry.checkouts += 1; entry.last_call = now; ",
        "entry.last_call = now; ",
    ),
    (
        "hold lends for a call",
        "straight.py",
        "entry.in_use, entry.listed, entry.whole = 1, False, True",
        "entry.in_use, entry.listed, entry.whole = 1, False, False",
    ),
)
