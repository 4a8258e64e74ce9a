import java.util.List;
import java.util.Map;
import java.util.Scanner;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.RejectedExecutionException;
import org.opensearch.common.settings.Settings;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.threadpool.ThreadPool;
import org.opensearch.transport.Netty4Plugin;

/**
 * OpenSearch in this process, without the scripts, the plugins and the account of its distribution.
 *
 * <p>Each argument is a setting, such as {@code http.port=9200}. The process ends when its input ends, so it never
 * outlives the test that started it. Each line of its input is a number and a command. {@code 1 occupy write} fills the
 * threads and the queue of that pool, so that OpenSearch itself rejects requests. {@code 2 release} empties all pools.
 * Its output has a line {@code done 1.} when the command is done.
 */
public final class SearchEngine extends Node {
    private SearchEngine(Settings settings) {
        super(
            InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "node"),
            List.of(Netty4Plugin.class),
            true
        );
    }

    public static void main(String[] arguments) throws Exception {
        Settings.Builder settings = Settings.builder();
        for (String argument : arguments) {
            String[] parts = argument.split("=", 2);
            settings.put(parts[0], parts[1]);
        }
        SearchEngine engine = new SearchEngine(settings.build());
        engine.start();
        ThreadPool pools = engine.injector().getInstance(ThreadPool.class);
        CountDownLatch released = new CountDownLatch(1);
        Scanner input = new Scanner(System.in);
        while (input.hasNextLine()) {
            String[] words = input.nextLine().split(" ");
            if (words[1].equals("occupy")) {
                occupy(pools.executor(words[2]), released);
            } else {
                released.countDown();
                released = new CountDownLatch(1);
            }
            System.out.println("done " + words[0] + ".");
        }
        // The end is as sudden as a kill.
        Runtime.getRuntime().halt(0);
    }

    /** Runs tasks in the pool until it rejects one. They wait until they are released. */
    private static void occupy(ExecutorService pool, CountDownLatch released) {
        try {
            while (true) {
                pool.execute(() -> await(released));
            }
        } catch (RejectedExecutionException full) {
            return;
        }
    }

    private static void await(CountDownLatch released) {
        try {
            released.await();
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
    }
}
