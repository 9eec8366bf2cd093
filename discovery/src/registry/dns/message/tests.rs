use bytes::BufMut as _;
use proptest::prelude::*;

use super::*;

/// The start of an answer with these numbers of records: an SRV question for `_a._tcp.X`.
fn start(flags: u16, [answers, authority, additional]: [u16; 3]) -> Vec<u8> {
    let mut bytes = query(7, &question(), false);
    bytes[2..4].copy_from_slice(&(RESPONSE | flags).to_be_bytes());
    bytes[6..8].copy_from_slice(&answers.to_be_bytes());
    bytes[8..10].copy_from_slice(&authority.to_be_bytes());
    bytes[10..12].copy_from_slice(&additional.to_be_bytes());
    bytes
}

fn question() -> Question {
    Question {
        name: Name::parse("_a._tcp.X").unwrap(),
        kind: Kind::Srv,
    }
}

/// A record of the question's name, which is at 12.
fn record(bytes: &mut Vec<u8>, kind: u16, ttl: u32, data: &[u8]) {
    bytes.put_slice(&[0xc0, 12]);
    bytes.put_u16(kind);
    bytes.put_u16(CLASS_IN);
    bytes.put_u32(ttl);
    bytes.put_u16(u16::try_from(data.len()).unwrap());
    bytes.put_slice(data);
}

/// Priority 1, weight 2, port 3, and a target.
fn srv(target: &[u8]) -> Vec<u8> {
    [&[0, 1, 0, 2, 0, 3][..], target].concat()
}

#[test]
fn a_query_has_one_question_and_edns_over_udp_only() {
    let tcp = query(0x0102, &question(), false);
    let expected = b"\x01\x02\x01\0\0\x01\0\0\0\0\0\0\x02_a\x04_tcp\x01x\0\0\x21\0\x01";
    assert_eq!(tcp, expected);
    let udp = query(0x0102, &question(), true);
    assert_eq!(udp[..10], tcp[..10]);
    assert_eq!(udp[udp.len() - 11..], *b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
}

#[test]
fn records_are_read_with_compressed_names_in_any_case() {
    let mut bytes = start(0, [2, 1, 2]);
    record(&mut bytes, 33, 60, &srv(b"\x02NS\xc0\x14"));
    record(&mut bytes, 5, u32::MAX, b"\x01b\0");
    let soa = [&b"\xc0\x14\x01m\0"[..], &[0; 19], &[9]].concat();
    record(&mut bytes, 6, 60, &soa);
    record(&mut bytes, 1, 60, &[127, 0, 0, 1]);
    record(&mut bytes, 16, 60, b"\x03txt");
    let message = Message::read(&bytes).unwrap();
    assert!(message.is_answer_to(&question()));
    let target = Name::parse("ns.x").unwrap();
    let expected = Srv {
        priority: 1,
        target,
        port: 3,
        weight: 2,
    };
    assert_eq!(message.answers[0].data, Data::Srv(expected));
    // A TTL above 2^31 - 1 counts as zero.
    assert_eq!(message.answers[1].ttl, 0);
    assert_eq!(
        message.answers[1].data,
        Data::Cname(Name::parse("b").unwrap())
    );
    assert_eq!(message.authority[0].data, Data::Soa { minimum: 9 });
    let local = message.additional[0].data.address().unwrap();
    assert_eq!(local.to_string(), "127.0.0.1");
    assert_eq!(message.additional[1].data, Data::Other);
    assert_eq!(message.additional[1].name, question().name);
}

#[test]
fn a_record_with_malformed_data_hides_no_other() {
    let broken: [&[u8]; 8] = [
        b"",
        b"\0\x01\0\x02\0",
        &srv(b""),
        &srv(b"\x05ab"),
        &srv(b"\x01a\0more"),
        // References to themselves, forward, and past the end.
        &srv(b"\xc0\xff"),
        &srv(b"\xff\xff"),
        &srv(b"\x80"),
    ];
    let mut bytes = start(0, [u16::try_from(broken.len()).unwrap() + 1, 0, 0]);
    for data in broken {
        record(&mut bytes, 33, 60, data);
    }
    record(&mut bytes, 33, 60, &srv(b"\x01b\0"));
    let message = Message::read(&bytes).unwrap();
    let (last, others) = message.answers.split_last().unwrap();
    assert!(matches!(last.data, Data::Srv(_)), "{last:?}");
    for record in others {
        assert!(matches!(record.data, Data::Malformed(33, _)), "{record:?}");
    }
}

#[test]
fn names_that_refer_in_a_circle_end() {
    // The owner at 12 refers to itself; its end is known, so the record after it is read.
    let mut bytes = vec![0, 7, 0x80, 0, 0, 0, 0, 2, 0, 0, 0, 0];
    record(&mut bytes, 33, 60, &srv(b"\0"));
    bytes.push(0);
    bytes.put_slice(&[0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 1]);
    let message = Message::read(&bytes).unwrap();
    assert!(matches!(message.answers[0].data, Data::Malformed(33, _)));
    assert_eq!(message.answers[1].ttl, 9);
}

#[test]
fn a_long_way_of_references_is_cut() {
    let target = |references: u16| {
        let mut bytes = start(0, [2, 0, 0]);
        // In the data of a record of another type: each refers to the one before, the first to the question.
        let at = u16::try_from(bytes.len()).unwrap() + 12;
        let mut chain = vec![0xc0, 12];
        for nth in 1..references {
            chain.put_u16(0xc000 | (at + (nth - 1) * 2));
        }
        record(&mut bytes, 16, 60, &chain);
        let end = 0xc000 | (at + (references - 1) * 2);
        record(&mut bytes, 33, 60, &srv(&end.to_be_bytes()));
        Message::read(&bytes).unwrap().answers[1].data.clone()
    };
    assert!(matches!(target(100), Data::Srv(srv) if srv.target == question().name));
    assert!(matches!(target(127), Data::Malformed(33, _)));
}

#[test]
fn a_message_that_is_not_an_answer_is_refused() {
    let good = start(0, [1, 0, 0]);
    for (bytes, reason) in [
        (&b""[..], "header"),
        (&good[..11], "header"),
        (&good[..20], "ends in the middle"),
        (&good, "ends in the middle"),
        (&query(7, &question(), false), "not the answer"),
        (&start(1 << 11, [0; 3]), "not the answer"),
    ] {
        let error = Message::read(bytes).unwrap_err();
        assert!(error.contains(reason), "{bytes:?}: {error}");
    }
    let mut two = start(0, [0; 3]);
    two[5] = 2;
    assert_eq!(Message::read(&two).unwrap_err(), "several questions");
}

#[test]
fn an_answer_is_to_its_own_question_only() {
    let of = |name, kind| Question {
        name: Name::parse(name).unwrap(),
        kind,
    };
    let message = Message::read(&start(0, [0; 3])).unwrap();
    assert!(message.is_answer_to(&of("_A._TCP.x", Kind::Srv)));
    assert!(!message.is_answer_to(&of("_b._tcp.x", Kind::Srv)));
    assert!(!message.is_answer_to(&of("_a._tcp.x", Kind::A)));
    // Without a question: only an error.
    for (code, expected) in [(0, false), (5, true)] {
        let bytes = [0, 7, 0x80, code, 0, 0, 0, 0, 0, 0, 0, 0];
        let message = Message::read(&bytes).unwrap();
        assert_eq!(message.is_answer_to(&question()), expected);
    }
}

#[test]
fn a_truncated_answer_says_so_wherever_it_ends() {
    let message = Message::read(&start(TRUNCATED, [200, 0, 0])).unwrap();
    assert!(message.truncated && message.answers.is_empty());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Message::read(&bytes);
    }

    #[test]
    fn an_answer_with_any_changed_bytes_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = start(0, [2, 0, 1]);
        record(&mut bytes, 33, 60, &srv(b"\x01b\xc0\x14"));
        record(&mut bytes, 33, 60, &srv(b"\xc0\x0c"));
        record(&mut bytes, 28, 60, &[1; 16]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(message) = Message::read(&bytes) {
            for record in &message.answers {
                prop_assert!(record.name.to_string().len() <= 4 * 255);
            }
        }
    }
}
