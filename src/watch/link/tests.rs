//! Real connections over the loopback: ranks that are heard, and strangers that do no harm.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::*;
use crate::observe::Doing;

const HERE: [Ipv4Addr; 1] = [Ipv4Addr::LOCALHOST];

fn listen(expected: usize) -> (Hub, Invitation) {
    Hub::listen_at(expected, &HERE, &HERE).unwrap()
}

/// Lets both sides talk until `done`.
fn talk(hub: &mut Hub, spoke: &mut Spoke, mut done: impl FnMut(&Heard, &[Reading], &[usize]) -> bool) {
    for _ in 0..500 {
        let heard = spoke.exchange([Reading::example(3, Doing::Forward, Some(1), 8)].into_iter());
        let mut noted = Vec::new();
        let gone = hub.exchange(|reading| noted.push(reading));
        if done(&heard, &noted, &gone) {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("it does not happen");
}

/// Whether the other side has closed the connection, or does so soon.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    match stream.read(&mut [0; 64]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn stranger(invitation: &Invitation, says: &[u8]) -> TcpStream {
    let mut stranger = TcpStream::connect(invitation.addresses[0]).unwrap();
    stranger.set_nonblocking(true).unwrap();
    // As much as goes without waiting.
    let _ = stranger.write(says);
    stranger
}

#[test]
fn readings_ticks_and_verdicts_arrive() {
    let (mut hub, invitation) = listen(1);
    let invitation = Invitation::of_bytes(&invitation.to_bytes()).unwrap();
    let mut spoke = Spoke::new(3, invitation);
    // Known from the first word on, so that it is missed even where it stops right after.
    talk(&mut hub, &mut spoke, |_, noted, _| noted == [Reading::of_rank(3)]);
    talk(&mut hub, &mut spoke, |_, noted, _| noted == [Reading::example(3, Doing::Forward, Some(1), 8)]);
    talk(&mut hub, &mut spoke, |heard, _, _| matches!(heard, Heard::Tick));
    hub.publish("rank 7 is stuck");
    talk(&mut hub, &mut spoke, |heard, _, _| matches!(heard, Heard::Verdict(text) if text == "rank 7 is stuck"));
    assert!(spoke.is_connected() && !spoke.ended);
    drop(hub);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !spoke.ended {
        assert!(Instant::now() < deadline, "the hub's end is not noticed");
        spoke.exchange(std::iter::empty());
    }
}

#[test]
fn a_spoke_that_ends_is_noticed() {
    let (mut hub, invitation) = listen(1);
    let mut spoke = Spoke::new(3, invitation);
    talk(&mut hub, &mut spoke, |_, noted, _| !noted.is_empty());
    drop(spoke);
    for _ in 0..500 {
        if hub.exchange(|_| {}) == [3] {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("its end is not noticed");
}

#[test]
fn when_all_ranks_are_there_nobody_else_gets_in() {
    let (mut hub, invitation) = listen(1);
    let mut waiting = stranger(&invitation, &[]);
    let mut spoke = Spoke::new(3, invitation.clone());
    talk(&mut hub, &mut spoke, |heard, _, _| matches!(heard, Heard::Tick));
    assert!(is_closed(&mut waiting));
    assert_eq!(TcpStream::connect(invitation.addresses[0]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    talk(&mut hub, &mut spoke, |heard, noted, _| matches!(heard, Heard::Tick) && noted.len() == 1);
}

#[test]
fn whoever_does_not_know_the_token_is_turned_away_at_the_first_wrong_byte() {
    let (mut hub, invitation) = listen(1);
    let token = invitation.token;
    let hello = u64::from_le_bytes(*b"biodist1");
    let all_but_one = [bytes([24, hello, token, 3 << 32])[..24].to_vec(), vec![0; 7]].concat();
    let wrong: [Vec<u8>; 9] = [
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01".to_vec(),
        bytes([24, hello, token ^ 1, 3]),
        bytes([24, hello, token ^ 1 << 63, 3]),
        bytes([24, hello ^ 1]),
        bytes([1 << 63, hello, token, 3]),
        bytes([u64::MAX]),
        bytes([0]),
        vec![25],
    ];
    let mut strangers: Vec<TcpStream> = wrong.iter().map(|says| stranger(&invitation, says)).collect();
    let mut slow = stranger(&invitation, &all_but_one);
    for _ in 0..500 {
        hub.exchange(|_| panic!("a stranger was believed"));
        if hub.strangers.len() == 1 {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(hub.strangers.len(), 1, "the one that has said nothing wrong yet");
    assert!(strangers.iter_mut().all(is_closed));
    // It has had its time.
    hub.strangers[0].since -= PATIENCE;
    hub.exchange(|_| panic!("a stranger was believed"));
    assert!(hub.strangers.is_empty() && is_closed(&mut slow));
    // And a rank that is slow in saying it has not.
    let mut halting = stranger(&invitation, &bytes([24, hello])[..11]);
    hub.exchange(|_| {});
    halting.write_all(&bytes([24, hello, token, 3])[11..]).unwrap();
    let mut noted = Vec::new();
    for _ in 0..500 {
        hub.exchange(|reading| noted.push(reading));
        std::thread::sleep(Duration::from_millis(1));
        if !noted.is_empty() {
            break;
        }
    }
    assert_eq!(noted, [Reading::of_rank(3)]);
}

#[test]
fn senders_of_zeros_cost_one_look() {
    let (mut hub, invitation) = listen(1);
    let zeros = vec![0; 1 << 20];
    let mut strangers: Vec<TcpStream> = (0..40).map(|_| stranger(&invitation, &zeros)).collect();
    let mut looks = 0;
    while strangers.iter_mut().any(|stranger| stranger.write(&zeros).is_ok() || !is_closed(stranger)) {
        hub.exchange(|_| panic!("a stranger was believed"));
        assert!(hub.strangers.is_empty(), "nothing of it is kept");
        looks += 1;
        assert!(looks <= 2, "they are turned away at once");
    }
}

#[test]
fn a_rank_cannot_send_more_than_a_look_takes_in() {
    let (mut hub, invitation) = listen(2);
    let mut spoke = Spoke::new(4, invitation.clone());
    talk(&mut hub, &mut spoke, |_, noted, _| !noted.is_empty());
    // One that knows the token, and announces a message that nobody could hold.
    let hello = u64::from_le_bytes(*b"biodist1");
    let greeting = bytes([24, hello, invitation.token, 3]);
    let mut rank = stranger(&invitation, &[greeting, bytes([1 << 63])].concat());
    talk(&mut hub, &mut spoke, |_, _, gone| gone == [3]);
    // The answer to its greeting, then the end.
    let mut answer = [0; 24];
    rank.set_nonblocking(false).unwrap();
    let _ = rank.read_exact(&mut answer);
    assert!(is_closed(&mut rank));
    // One that sends without end is listened to a part at a time, and in whole messages.
    let of_rank_4 = |alive: usize| {
        let mut reading = Reading::of_rank(4);
        reading.alive = alive as u64;
        reading
    };
    let sender = std::thread::spawn(move || {
        let channel = &mut spoke.channel.as_mut().unwrap().0;
        let readings = bytes((0..4000).flat_map(|alive| of_rank_4(alive).to_words()));
        for _ in 0..8 {
            channel.send(&readings);
            while !channel.closed && !channel.is_idle() {
                channel.flush();
            }
        }
        spoke
    });
    let mut noted = 0;
    while noted < 8 * 4000 {
        let before = noted;
        hub.exchange(|reading| {
            assert_eq!(reading, of_rank_4(noted % 4000));
            noted += 1;
        });
        assert!((noted - before) * Reading::WORDS * 8 <= channel::AT_A_TIME + channel::LONGEST);
    }
    let mut spoke = sender.join().unwrap();
    talk(&mut hub, &mut spoke, |heard, _, _| matches!(heard, Heard::Tick));
}

#[test]
fn a_connection_that_is_not_answered_is_given_up_for_the_next_address() {
    let (mut hub, mut invitation) = listen(1);
    // Another's program at an address that both hosts have.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    invitation.addresses.insert(0, other.local_addr().unwrap());
    let mut spoke = Spoke::new(3, invitation);
    spoke.exchange(std::iter::empty());
    spoke.channel.as_mut().unwrap().1 -= PATIENCE;
    talk(&mut hub, &mut spoke, |heard, _, _| matches!(heard, Heard::Tick));
    assert!(spoke.is_connected());
}

/// By which a test asks the next one, in a process of its own, to be one.
const HUB: &str = "BIODIST_TEST_HUB";
const DESCRIPTORS: u64 = 256;

/// A hub for ranks 3 and 4 in a process that has few descriptors, and needs one more for a file now and then.
#[test]
fn a_hub_with_few_descriptors() {
    if std::env::var_os(HUB).is_none() {
        return;
    }
    let limit = libc::rlimit { rlim_cur: DESCRIPTORS, rlim_max: DESCRIPTORS };
    // SAFETY: the limit lives here.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    let (mut hub, invitation) = listen(2);
    println!("\ninvitation {}", String::from_utf8(invitation.to_bytes()).unwrap());
    let mut ranks = 0;
    while ranks < 2 {
        hub.exchange(|reading| {
            println!("\nrank {}", reading.rank);
            ranks += 1;
        });
        std::fs::File::open("/dev/null").unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    hub.exchange(|_| {});
    println!("\ncomplete");
}

#[test]
fn a_thousand_silent_connections_keep_no_rank_out_and_cost_few_descriptors() {
    // This process needs more of them.
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit lives here.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_cur = limit.rlim_max.min(8192);
    // SAFETY: the limit lives here.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };

    let mut hub = Command::new(std::env::current_exe().unwrap());
    hub.args(["--exact", "watch::link::tests::a_hub_with_few_descriptors", "--nocapture"]);
    let mut hub = hub.env(HUB, "yes").stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(hub.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut hear = |word: &str| said.find_map(|line| line.strip_prefix(word).map(str::to_owned)).unwrap_or_else(|| panic!("no {word}"));
    let invitation = Invitation::of_bytes(hear("invitation ").as_bytes()).unwrap();
    let mut silent = Vec::new();
    let mut spokes = [3, 4].map(|rank| Spoke::new(rank, invitation.clone()));
    for number in 0..1100 {
        silent.push(TcpStream::connect(invitation.addresses[0]).unwrap());
        // In the midst of them.
        if number > 500 && !spokes[0].is_connected() {
            spokes[0].exchange(std::iter::empty());
        }
    }
    for (spoke, rank) in spokes.iter_mut().zip(["3", "4"]) {
        spoke.greet(Duration::from_secs(20));
        assert!(spoke.is_connected());
        assert_eq!(hear("rank "), rank);
    }
    hear("complete");
    assert!(hub.wait().unwrap().success());
    let open = silent.iter_mut().filter_map(|stream| (!is_closed(stream)).then_some(())).count();
    assert_eq!(open, 0);
}
