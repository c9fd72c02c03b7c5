/* Included before everything else into the kernel's fs/dcache.c.
 *
 * A task that takes a directory entry away may be put aside in the midst of it. Another task that
 * takes the parent away (every process that ends does, for its directory in /proc) then looks again
 * and again whether the first one has done its work, and gives the CPU up only if the kernel's
 * clock has ticked meanwhile. Where a task computes, the virtual clock stands still: the second one
 * would look for ever. So the first one is not put aside there, and the second one gives the CPU up
 * each time.
 */
#include <linux/sched.h>
#include <linux/rcupdate.h>

#undef cond_resched_tasks_rcu_qs
#define cond_resched_tasks_rcu_qs() do { } while (0)
#undef cond_resched
#define cond_resched() ({ yield(); 0; })
