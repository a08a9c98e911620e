//! Searches of all states, and walks at random.
//!
//! Cells are not made to be copied. So a state is known by what has happened since the machine was started, and is made anew from that
//! whenever it is needed; that two are the same is known by the hash of everything in them.

use super::cases::Case;
use super::rules::Check;
use super::world::{Action, World};
use crate::rng::Rng;
use crate::talk::model::explore::{Model, hash};
use abi::config::Config;
use std::cell::RefCell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

/// A case, to be searched.
pub struct Search<'a> {
    case: &'a Case,
    config: Rc<Config>,
    text: RefCell<String>,
}

/// What has happened, the last first.
#[derive(Debug)]
struct Way(Option<Rc<Way>>, Action);

/// A state of everything.
#[derive(Clone, Debug)]
pub struct Point {
    digest: u128,
    way: Option<Rc<Way>>,
    actions: Rc<Vec<Action>>,
    end: Check<bool>,
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.digest.hash(hasher);
    }
}

/// A world, to be hashed.
struct Whole<'a>(&'a World<'a>, &'a RefCell<String>);

impl Hash for Whole<'_> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.digest(hasher, &mut self.1.borrow_mut());
    }
}

impl<'a> Search<'a> {
    pub fn new(case: &'a Case) -> Self {
        Self { case, config: Rc::new(case.config()), text: RefCell::default() }
    }

    fn point(&self, world: &World, way: Option<Rc<Way>>) -> Point {
        let mut actions = Vec::new();
        world.actions(&mut actions);
        let digest = hash(&Whole(world, &self.text));
        Point { digest, way, actions: Rc::new(actions), end: world.is_end() }
    }

    fn world(&self, way: Option<&Rc<Way>>) -> World<'_> {
        let mut actions = Vec::new();
        let mut at = way;
        while let Some(step) = at {
            actions.push(step.1);
            at = step.0.as_ref();
        }
        let mut world = World::new(self.case, &self.config);
        for action in actions.into_iter().rev() {
            world.act(action).expect("it went well before");
        }
        world
    }
}

impl Model for Search<'_> {
    type State = Point;
    type Action = Action;

    fn start(&self) -> Point {
        self.point(&World::new(self.case, &self.config), None)
    }

    fn actions(&self, state: &Point, actions: &mut Vec<Action>) {
        actions.extend_from_slice(&state.actions);
    }

    fn next(&self, state: &Point, action: Action) -> Check<Option<Point>> {
        let mut world = self.world(state.way.as_ref());
        world.act(action)?;
        let point = self.point(&world, Some(Rc::new(Way(state.way.clone(), action))));
        Ok((point.digest != state.digest).then_some(point))
    }

    fn is_end(&self, state: &Point) -> Check<bool> {
        state.end.clone()
    }
}

/// What a number of walks has come to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walked {
    pub walks: u64,
    pub steps: u64,
    pub deaths: u64,
    pub ended: u64,
    pub lost: u64,
}

impl fmt::Display for Walked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { walks, steps, deaths, ended, lost } = self;
        write!(f, "{walks} walks, {steps} steps at random, {deaths} deaths, ")?;
        write!(f, "{ended} VMs ended, {lost} lost with their homes")
    }
}

/// Steps at random in one walk, before everything is to come to its end.
const STEPS: u64 = 400;
/// Rounds in which it has to.
const ROUNDS: usize = 60;

/// One walk, of which the seed decides everything.
///
/// # Errors
/// A rule is broken: which, and the way there.
pub fn walk(case: &Case, config: &Rc<Config>, seed: u64, walked: &mut Walked) -> Check {
    let mut rng = Rng::new(seed);
    let mut world = World::new(case, config);
    let mut way: Vec<Action> = Vec::new();
    let mut actions = Vec::new();
    let found = (|| {
        for _ in 0..STEPS {
            actions.clear();
            world.actions(&mut actions);
            // What happens once is not to happen at the beginning.
            let rare = |action: &Action| {
                matches!(action, Action::Dies(_) | Action::Hangs(_) | Action::Reboots(_))
            };
            if actions.is_empty() {
                break;
            }
            let mut action = actions[rng.below(actions.len() as u64) as usize];
            if rare(&action) && rng.below(12) != 0 {
                let common: Vec<&Action> = actions.iter().filter(|a| !rare(a)).collect();
                if !common.is_empty() {
                    action = *common[rng.below(common.len() as u64) as usize];
                }
            }
            way.push(action);
            walked.steps += 1;
            world.act(action)?;
        }
        for _ in 0..ROUNDS {
            if world.is_end()? {
                return Ok(());
            }
            world.round(|action| way.push(action))?;
        }
        Err(format!("it does not come to an end: {}", world.unsettled()))
    })();
    walked.walks += 1;
    world.tally(walked);
    found.map_err(|rule: String| {
        let way: Vec<String> = way.iter().map(|action| format!("{action:?}")).collect();
        format!("{rule}, in {} with seed {seed}:\n{}", case.name, way.join("\n"))
    })
}
