use super::*;

#[tokio::test(start_paused = true)]
async fn request_seconds_are_the_integral() {
    let ledger = Ledger::new();
    let account = ledger.account("ns", "f", "f-00001");
    assert!(ledger.read(None).revisions.is_empty(), "never called, never told");
    account.queue();
    tokio::time::advance(Duration::from_millis(500)).await;
    account.grant();
    account.enter();
    tokio::time::advance(Duration::from_millis(250)).await;
    let reading = ledger.read(None);
    let told = &reading.revisions[0];
    assert_eq!((told.in_flight, told.queued, told.arrivals, told.request_us), (2, 0, 2, 1_000_000));
    assert_eq!((told.busy_us, told.served_us), (Some(500_000), 0), "without the time in the queue");
    account.complete(Duration::from_millis(250));
    account.complete(Duration::from_millis(250));
    let told = ledger.read(Some(reading.mark)).revisions[0].clone();
    assert_eq!((told.concurrency(), told.completions, told.request_us), (0, 2, 1_000_000));
    assert_eq!((told.busy_us, told.served_us), (Some(500_000), 500_000));
}

#[tokio::test(start_paused = true)]
async fn held_requests_arrive_when_they_are_released() {
    let ledger = Ledger::new();
    let account = ledger.account("ns", "f", "f-00001");
    let urgent = ledger.urgent();
    let told = || {
        let told = ledger.read(None).revisions.remove(0);
        assert_eq!(told.arrivals - told.completions - told.abandoned, told.in_flight + told.queued, "{told:?}");
        (told.held, told.queued, told.in_flight, told.arrivals, told.request_us)
    };
    account.hold(true);
    account.queue();
    account.queue();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!((told(), *urgent.borrow()), ((2, 0, 0, 0, 0), 0), "nobody is to start pods for them");
    account.leave();
    account.grant();
    assert_eq!(told(), (0, 0, 1, 1, 0), "one disconnected, and a pod was there after all");
    account.complete(Duration::ZERO);
    account.queue();
    tokio::time::advance(Duration::from_secs(1)).await;
    account.hold(false);
    assert_eq!((told(), *urgent.borrow()), ((0, 1, 0, 2, 0), 2));
    tokio::time::advance(Duration::from_secs(1)).await;
    account.hold(true);
    account.hold(true);
    assert_eq!(told(), (1, 0, 0, 2, 1_000_000), "its next wake is delayed");
    account.leave();
    assert_eq!(told(), (0, 0, 0, 2, 1_000_000));
}

#[tokio::test(start_paused = true)]
async fn requests_that_no_pod_has_served_are_counted_apart() {
    let ledger = Ledger::new();
    let account = ledger.account("ns", "f", "f-00001");
    account.queue();
    account.enter();
    account.leave();
    account.give_back();
    let told = ledger.read(None).revisions.remove(0);
    assert_eq!((told.arrivals, told.completions, told.abandoned, told.concurrency()), (2, 0, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn only_what_changed_is_told_again() {
    let ledger = Ledger::new();
    let (a, b) = (ledger.account("ns", "a", "a-1"), ledger.account("ns", "b", "b-1"));
    a.enter();
    b.enter();
    a.complete(Duration::ZERO);
    b.complete(Duration::ZERO);
    let mark = ledger.read(None).mark;
    assert!(ledger.read(Some(mark)).revisions.is_empty());
    b.enter();
    let reading = ledger.read(Some(mark));
    assert_eq!(reading.revisions.iter().map(|r| r.function.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(ledger.read(Some(reading.mark)).revisions.len(), 1, "a busy revision is told every time");
}

#[tokio::test(start_paused = true)]
async fn of_a_function_that_is_gone_the_end_is_told() {
    let ledger = Ledger::new();
    let (account, nameless) = (ledger.account("ns", "f", "f-1"), ledger.account("ns", "g", ""));
    nameless.queue();
    account.enter();
    account.pod_seen("p/1", None, true);
    let mark = ledger.read(None).mark;
    account.abandon();
    let told = |reading: Reading| {
        let told = |r: &RevisionDemand| (r.revision.clone(), r.in_flight, r.pods.len());
        reading.revisions.iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(told(ledger.read(Some(mark))), [("f-1".into(), 1, 0)], "its request goes on");
    // One that is made anew under the name has none of its requests, and that is told before it is called.
    let anew = ledger.account("ns", "f", "f-1");
    assert!(!Arc::ptr_eq(&account, &anew));
    assert_eq!(told(ledger.read(Some(mark))), [("f-1".into(), 0, 0)]);
    account.complete(Duration::ZERO);
    anew.abandon();
    assert_eq!(told(ledger.read(None)), [("f-1".into(), 0, 0)]);
    tokio::time::advance(TOLD_FOR + Duration::from_millis(1)).await;
    assert_eq!(told(ledger.read(None)), []);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_no_longer_needed_is_told_until_everybody_knows_that_it_has_nothing() {
    let ledger = Ledger::new();
    let (a, b) = (ledger.account("ns", "f", "f-1"), ledger.account("ns", "f", "f-2"));
    a.queue();
    b.enter();
    let mark = ledger.read(None).mark;
    a.leave();
    a.close();
    b.close();
    tokio::time::advance(TOLD_FOR).await;
    let reading = ledger.read(Some(mark));
    let told = |reading: &Reading| {
        let told = |r: &RevisionDemand| (r.revision.clone(), r.queued, r.in_flight, r.completions + r.abandoned);
        reading.revisions.iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(told(&reading), [("f-1".into(), 0, 0, 1), ("f-2".into(), 0, 1, 0)]);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(told(&ledger.read(None)), [("f-2".into(), 0, 1, 0)], "what is in a pod goes on");
    b.complete(Duration::ZERO);
    assert_eq!(told(&ledger.read(Some(reading.mark))), [("f-2".into(), 0, 0, 1)]);
    // Without a reader as well nothing is kept.
    tokio::time::advance(TOLD_FOR + Duration::from_millis(1)).await;
    ledger.each(|_| ());
    assert_eq!(ledger.accounts.read().all().count(), 0);
}

#[tokio::test]
async fn one_that_is_needed_again_goes_on_counting() {
    let ledger = Ledger::new();
    let account = ledger.account("ns", "f", "f-1");
    account.enter();
    account.close();
    let again = ledger.account("ns", "f", "f-1");
    assert!(Arc::ptr_eq(&account, &again));
    assert!(!Arc::ptr_eq(&again, &ledger.account("ns", "f", "f-2")));
    again.enter();
    account.complete(Duration::ZERO);
    let told = ledger.read(None).revisions;
    assert_eq!((told.len(), told[0].arrivals, told[0].in_flight), (1, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn the_first_call_is_urgent_and_a_steady_caller_is_not() {
    let ledger = Ledger::new();
    let account = ledger.account("ns", "f", "f-00001");
    let urgent = ledger.urgent();
    account.enter();
    assert_eq!(*urgent.borrow(), 1);
    for _ in 0..10 {
        account.complete(Duration::ZERO);
        account.enter();
    }
    assert_eq!(*urgent.borrow(), 1);
    account.complete(Duration::ZERO);
    tokio::time::advance(FRAME_INTERVAL).await;
    account.enter();
    assert_eq!(*urgent.borrow(), 2);
}
