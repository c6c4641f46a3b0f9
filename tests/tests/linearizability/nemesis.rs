//! What goes wrong, by the choices of a seed.

use crate::content::Random;
use crate::network::{Network, VOLUMES};
use kvdb_tests::Way;
use rustix::process::Signal;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What was done so far.
#[derive(Debug, Default)]
pub struct Faults {
    pub kills_of_master: u64,
    pub kills_of_volumes: u64,
    pub stops: u64,
    pub cuts: u64,
    pub stalls: u64,
    pub delays: u64,
}

fn up_to(random: &mut Random, ms: u64) -> Duration {
    Duration::from_millis(random.below(ms))
}

/// Now and then longer than three seconds, in which a server that says nothing is taken for down.
fn pause(random: &mut Random) -> Duration {
    let most = if random.below(4) == 0 { 4500 } else { 700 };
    up_to(random, most)
}

/// Works until then, and ends with all servers running and all connections whole.
pub fn work(network: &mut Network, seed: u64, until: Instant) -> Faults {
    let (mut random, mut faults) = (Random::new(seed), Faults::default());
    while Instant::now() < until {
        sleep(Duration::from_millis(50) + up_to(&mut random, 500));
        one(network, &mut random, &mut faults);
        if random.below(2) == 0 {
            network.cluster.wait_all_up();
        }
    }
    faults
}

fn one(network: &mut Network, random: &mut Random, faults: &mut Faults) {
    let volume = usize::try_from(random.below(VOLUMES as u64)).unwrap();
    match random.below(100) {
        0..25 => {
            faults.kills_of_volumes += 1;
            network.cluster.kill_volume(volume);
            sleep(up_to(random, 800));
            network.cluster.start_volume(volume);
        }
        25..40 => {
            faults.kills_of_master += 1;
            network.cluster.kill_master();
            sleep(up_to(random, 400));
            network.cluster.start_master();
        }
        n @ 40..60 => {
            faults.stops += 1;
            let time = pause(random);
            let server = if n < 54 { network.cluster.volume(volume) } else { network.cluster.master() };
            server.signal(Signal::STOP);
            sleep(time);
            server.signal(Signal::CONT);
        }
        n => {
            let proxies = network.proxies();
            let proxy = proxies[usize::try_from(random.below(proxies.len() as u64)).unwrap()];
            let way = if random.below(2) == 0 { Way::Forth } else { Way::Back };
            match n {
                60..82 => {
                    faults.cuts += 1;
                    proxy.cut();
                }
                82..90 => {
                    faults.stalls += 1;
                    proxy.stall(way);
                    sleep(pause(random));
                    if random.below(2) == 0 {
                        proxy.cut();
                    }
                }
                90..95 => {
                    faults.stalls += 1;
                    proxy.leave_half_open();
                    sleep(up_to(random, 2000));
                    proxy.cut();
                }
                _ => {
                    faults.delays += 1;
                    proxy.delay(way, up_to(random, 60));
                    sleep(up_to(random, 1000));
                }
            }
            proxy.heal();
        }
    }
}
