// Asking the admin server, again and again: GET status, readyz and status/history, and
// nothing else.

const every = 1000; // ms between two answers
const patience = 4000; // ms for one answer

// A Live asks while the page can be seen and is not paused. It hands over each answer
// by take({status, ready, history}), of which history is null but in the first answer
// of a process and after a pause; by lost(why) it says each time that there is none.
export class Live {
  #take;
  #lost;
  #limit = 100;
  #paused = false;
  #timer = 0;
  #asking = false;
  #again = false;
  #instance = null; // whose history was taken; null: nobody's

  constructor(take, lost) {
    this.#take = take;
    this.#lost = lost;
  }

  start() {
    document.addEventListener("visibilitychange", () => {
      // Timers of a page that is not seen come late: what it shows has a gap.
      this.#instance = null;
      this.now();
    });
    this.now();
  }

  // limit is how many streams or joins an answer is to have.
  set limit(n) {
    this.#limit = n;
    this.now();
  }

  set paused(yes) {
    this.#paused = yes;
    if (!yes) this.#instance = null;
    this.now();
  }

  // now asks at once, or as soon as the answer under way is there.
  now() {
    if (this.#asking) {
      this.#again = true;
      return;
    }
    clearTimeout(this.#timer);
    if (document.hidden || this.#paused) return;
    this.#ask();
  }

  async #ask() {
    this.#asking = true;
    this.#again = false;
    let answer = null;
    try {
      answer = await this.#answer();
    } catch (error) {
      this.#instance = null;
      this.#lost(reason(error));
    }
    this.#asking = false;
    if (this.#again) this.now();
    else if (!this.#paused) this.#timer = setTimeout(() => this.now(), every);
    if (answer && !this.#paused) this.#take(answer);
  }

  async #answer() {
    const [status, ready] = await Promise.all([
      get(`status?streams=${this.#limit}&joins=${this.#limit}`),
      get("readyz", 503), // which says why not
    ]);
    if (status.instance === this.#instance) return { status, ready, history: null };
    const history = await get("status/history");
    this.#instance = status.instance;
    return { status, ready, history };
  }
}

// A Refused is an answer that is none.
class Refused extends Error {}

async function get(path, alsoGood) {
  const answer = await fetch(path, {
    headers: { Accept: "application/json" },
    cache: "no-store",
    redirect: "error",
    signal: AbortSignal.timeout(patience),
  });
  if (!answer.ok && answer.status !== alsoGood) throw new Refused(`/${path.split("?")[0]} answers ${answer.status}`);
  return answer.json();
}

function reason(error) {
  if (error instanceof Refused) return error.message;
  if (error.name === "TimeoutError") return `no answer within ${patience / 1000} s`;
  if (error instanceof SyntaxError) return "the answer is no JSON";
  return "nobody answers";
}
